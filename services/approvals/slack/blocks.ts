import type {
  ActionsBlock,
  KnownBlock,
  ModalView,
  RichTextBlock,
  RichTextBlockElement,
  RichTextSection,
} from "@slack/types";
import { type Approval, currentHash } from "../approval.ts";
import type { Card, CardLine } from "../card.ts";
import { type Ticket, toValue } from "./payload.ts";

/**
 * Approvals as Block Kit. What an agent wrote goes only where Slack parses nothing: plain_text, and preformatted rich
 * text. Limits are Slack's documented ones (api.slack.com/reference/block-kit, read 2026): cut here, and said so.
 */

const HEADER = 150;
const PLAIN = 2_900;
/** Of a whole message: beyond it, the page is the place to read. */
const ARGUMENTS = 2_400;
const MOST_ARGUMENTS = 10;
const MOST_LINES = 14;
const LABEL = 74;
/** Of a plain_text_input's initial value and of what may be typed into it. */
export const INPUT = 3_000;
const TITLE = 24;

/** Whether everything that would run can be read in the message: otherwise it is approved on the page only. */
export function isWhole({ args }: Card): boolean {
  const length = args.reduce((sum, { label, text, rest }) => sum + label.length + text.length + rest.length, 0);
  return length <= ARGUMENTS && args.length <= MOST_ARGUMENTS;
}

/** For an incoming webhook, which hears no answers: only the way to the page. */
export function linkBlocks(card: Card, link: string): KnownBlock[] {
  const open = { type: "button", action_id: "open", text: plain("Read and answer", LABEL), url: link } as const;
  return [
    { type: "header", text: plain(card.sentence, HEADER) },
    { type: "context", elements: [plain(statusText(card, true), PLAIN)] },
    { type: "actions", elements: [{ ...open, style: "primary" }] },
  ];
}

export function messageBlocks(approval: Approval, card: Card, link: string): KnownBlock[] {
  const isOpen = approval.ending === undefined;
  const blocks: KnownBlock[] = [
    { type: "header", text: plain(card.sentence, HEADER) },
    { type: "context", elements: [plain(statusText(card, isOpen), PLAIN)] },
  ];
  if (card.warnings.length > 0) {
    blocks.push({ type: "section", text: plain(`⚠ ${card.warnings.join("\n⚠ ")}`, PLAIN) });
  }
  blocks.push(argumentsBlock(card));
  const lines = card.lines.slice(0, MOST_LINES).flatMap((line) => lineElements(line));
  if (lines.length > 0) blocks.push({ type: "rich_text", elements: lines });
  if (isOpen) blocks.push(actions(approval, card, link));
  blocks.push({ type: "context", elements: [plain(`Approval ${card.approvalId}`, PLAIN)] });
  return blocks;
}

/** For notifications and screen readers. */
export function fallbackText(card: Card): string {
  return cut(`${card.sentence} (${card.state})`, PLAIN);
}

function statusText({ risk, state, timeLeft, tool }: Card, isOpen: boolean): string {
  return `${isOpen ? "⏳" : "■"} ${state} · ${risk} risk · ${tool}${isOpen ? ` · ${timeLeft} left` : ""}`;
}

function argumentsBlock(card: Card): RichTextBlock {
  const elements: RichTextBlockElement[] = [section("What it would be given, in the agent's words")];
  let left = ARGUMENTS;
  let shown = 0;
  for (const { label, text, rest } of card.args) {
    if (shown === MOST_ARGUMENTS || left <= 0) break;
    const whole = `${label}: ${text}${rest}`;
    const part = cut(whole, left);
    elements.push({ type: "rich_text_preformatted", elements: [{ type: "text", text: part }] });
    left -= part.length;
    shown++;
  }
  if (!isWhole(card))
    elements.push(section("There is more than fits here. Read all of it on the page, and answer there."));
  return { type: "rich_text", elements };
}

function lineElements({ label, text, rest, quoted }: CardLine): RichTextBlockElement[] {
  const shown = cut(text + rest, 300);
  if (!quoted)
    return [{ type: "rich_text_section", elements: [bold(`${label}: `), { type: "text", text: `${shown}\n` }] }];
  return [
    section(label),
    { type: "rich_text_quote", elements: [{ type: "text", text: shown === "" ? "(nothing)" : shown }] },
  ];
}

function actions(approval: Approval, card: Card, link: string): ActionsBlock {
  const { binding, joined } = approval;
  const ticket: Ticket = { id: binding.approvalId, hash: currentHash(approval), calls: joined.length + 1 };
  const button = (id: string, label: string) =>
    ({ type: "button", action_id: id, text: plain(label, LABEL), value: toValue(ticket) }) as const;
  const open = { type: "button", action_id: "open", text: plain("Open the page", LABEL), url: link } as const;
  if (!isWhole(card))
    return { type: "actions", elements: [{ ...open, style: "primary" }, button("reject", "Reject…")] };
  const approve = {
    ...button("approve", joined.length > 0 ? `Approve all ${joined.length + 1}` : "Approve"),
    style: "primary",
  } as const;
  const reject = { ...button("reject", "Reject…"), style: "danger" } as const;
  return { type: "actions", elements: [approve, reject, button("edit", "Change…"), button("ask", "Ask…"), open] };
}

export function digestBlocks(cards: readonly { readonly card: Card; readonly link: string }[]): KnownBlock[] {
  const most = 40;
  const items = cards.slice(0, most).map(
    ({ card, link }): RichTextSection => ({
      type: "rich_text_section",
      elements: [
        { type: "link", url: link, text: cut(card.sentence, 140) },
        { type: "text", text: ` · ${card.timeLeft} left` },
      ],
    }),
  );
  const more = cards.length > most ? ` The first ${most} are:` : "";
  return [
    { type: "header", text: plain(`${cards.length} of low risk wait for an answer`, HEADER) },
    {
      type: "rich_text",
      elements: [
        section(`Open one to answer it.${more}`),
        { type: "rich_text_list", style: "bullet", elements: items },
      ],
    },
  ];
}

export type ModalKind = "reject" | "edit" | "ask";
export const FIELD = "answer";

export function modal(kind: ModalKind, approval: Approval, card: Card, metadata: string): ModalView {
  const words = MODALS[kind];
  const json = JSON.stringify(JSON.parse(approval.edit?.argumentsJson ?? approval.shown.argumentsJson), null, 2);
  return {
    type: "modal",
    callback_id: kind,
    private_metadata: metadata,
    title: plain(words.title, TITLE),
    submit: plain(words.submit, TITLE),
    close: plain("Back", TITLE),
    blocks: [
      { type: "section", text: plain(card.sentence, PLAIN) },
      {
        type: "input",
        block_id: FIELD,
        label: plain(words.label, PLAIN),
        hint: plain(words.hint, PLAIN),
        element: {
          type: "plain_text_input",
          action_id: FIELD,
          multiline: true,
          max_length: kind === "edit" ? INPUT : 2_000,
          ...(kind === "edit" ? { initial_value: json } : { min_length: 1 }),
        },
      },
    ],
  };
}

const MODALS = {
  reject: { title: "Reject", submit: "Reject", label: "Why", hint: "On record; the agent reads it." },
  edit: {
    title: "Change and approve",
    submit: "Approve as changed",
    label: "Arguments",
    hint: "What is [masked] stays as it is. Schema and policy are asked again.",
  },
  ask: { title: "Ask the agent", submit: "Ask", label: "Question", hint: "The approval goes on waiting." },
} as const satisfies Record<ModalKind, object>;

export function fitsModal(approval: Approval): boolean {
  const json = approval.edit?.argumentsJson ?? approval.shown.argumentsJson;
  return JSON.stringify(JSON.parse(json), null, 2).length <= INPUT;
}

function section(text: string): RichTextBlockElement {
  return { type: "rich_text_section", elements: [bold(cut(text, PLAIN))] };
}

function bold(text: string) {
  return { type: "text", text, style: { bold: true } } as const;
}

function plain(text: string, length: number) {
  return { type: "plain_text", text: cut(text === "" ? "-" : text, length), emoji: false } as const;
}

/** Counted in UTF-16 units, as Slack counts; never through the middle of a character. */
function cut(text: string, length: number): string {
  if (text.length <= length) return text;
  const head = text.slice(0, length - 1);
  return `${head.isWellFormed() ? head : head.slice(0, -1)}…`;
}
