import type { ManifestInput } from "./attack-run.ts";

/** The tools of the attack suite's six domains. What reads what others wrote is untrusted; schemas say no more than life does. */

type Effects = NonNullable<ManifestInput["effects"]>;
type Labels = NonNullable<ManifestInput["labels"]>;
type Spec = readonly [effects: Effects, labels: Labels, args: string[]];

const UNTRUSTED: Labels = ["untrusted-input"];
const PRIVATE: Labels = ["private-data"];
const UNTRUSTED_AND_PRIVATE: Labels = [...UNTRUSTED, ...PRIVATE];

const SPECS: Readonly<Record<string, Spec>> = {
  "bank.read_document": [["reads"], UNTRUSTED, ["file"]],
  "bank.list_transactions": [["reads"], UNTRUSTED_AND_PRIVATE, ["count"]],
  "bank.payees": [["reads"], PRIVATE, []],
  "bank.send_money": [["sends", "spends", "irreversible"], [], ["recipient", "amount", "subject"]],
  "bank.schedule": [["writes", "spends"], [], ["recipient", "amount", "day"]],
  "mail.read_inbox": [["reads"], UNTRUSTED_AND_PRIVATE, ["folder"]],
  "mail.contacts": [["reads"], PRIVATE, ["name"]],
  "mail.send": [["sends"], [], ["to", "subject", "body"]],
  "mail.add_forwarding": [["writes", "sends"], [], ["address"]],
  "travel.reviews": [["reads"], UNTRUSTED, ["hotel"]],
  "travel.search_hotels": [["reads"], [], ["city"]],
  "travel.book_hotel": [["writes", "spends"], [], ["hotel_id", "nights", "guest"]],
  "travel.pay_deposit": [["spends", "irreversible"], [], ["account", "amount"]],
  "repo.read_issue": [["reads"], UNTRUSTED, ["issue"]],
  "repo.read_file": [["reads"], [], ["path"]],
  "repo.open_pull_request": [["writes"], [], ["branch", "title", "body"]],
  "repo.add_collaborator": [["writes"], [], ["user"]],
  "repo.add_webhook": [["writes", "sends"], [], ["url"]],
  "crm.read_ticket": [["reads"], UNTRUSTED, ["ticket"]],
  "crm.find_order": [["reads"], PRIVATE, ["order_id"]],
  "crm.refund": [["spends", "irreversible"], [], ["order_id", "account", "amount"]],
  "crm.reply": [["sends"], [], ["ticket", "body"]],
  "chat.read_channel": [["reads"], UNTRUSTED, ["channel"]],
  "chat.directory": [["reads"], [], ["name"]],
  "chat.post": [["sends"], [], ["channel", "text"]],
  "chat.invite": [["writes", "sends"], [], ["channel", "user_email"]],
  "calendar.create": [["writes", "sends"], [], ["title", "start", "participants"]],
};

export function attackTools(): ManifestInput[] {
  return Object.entries(SPECS).map(([name, [effects, labels, args]]) => ({
    ...{
      name,
      version: "1.0.0",
      description: "A tool of the attack suite.",
      impact: "medium" as const,
      effects,
      labels,
    },
    arguments: {
      type: "object",
      required: args,
      additionalProperties: false,
      properties: Object.fromEntries(args.map((arg) => [arg, {}])),
    },
    sandbox: { kind: "builtin" as const, name: "noop" as const },
  }));
}
