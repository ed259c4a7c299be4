import { describe, expect, test } from "vitest";
import type { Event } from "./approval.ts";
import type { Approve, Command } from "./commands.ts";
import { decide } from "./decider.ts";
import type { Reviewer } from "./eligibility.ts";
import { evolve } from "./evolve.ts";
import { alice, bob, givers, HASH, NOW_MS, newApproval, OTHER_HASH, reviewer, TTL_MS, uuid } from "./fixture.ts";
import { initial, type State } from "./state.ts";

/** What reviewers may answer besides yes and no, as tables. */

const approvalId = uuid(1);
const nowMs = NOW_MS + 60_000;

type Options = Parameters<typeof newApproval>[0];
const request = (binding: Options = {}, labels: readonly string[] = ["private-data"]): Command => {
  const approval = newApproval(binding);
  return { kind: "request", givers, approval: { ...approval, shown: { ...approval.shown, labels } }, nowMs: NOW_MS };
};
/** A further call of the first one's session. */
const more = (
  n: number,
  binding: Options = {},
  shown: Partial<ReturnType<typeof newApproval>["shown"]> = {},
): Command => {
  const first = newApproval().binding;
  const approval = newApproval({
    ...{ approvalId: uuid(n), principal: first.principal, ref: { session: "s1", callId: uuid(n) } },
    ...binding,
  });
  return { kind: "request", givers, approval: { ...approval, shown: { ...approval.shown, ...shown } }, nowMs };
};
const approve = (overrides: Partial<Approve> = {}): Command => ({
  ...{ kind: "approve", approvalId, reviewer: alice, argumentsHash: HASH, calls: 1, comment: "", nowMs },
  ...overrides,
});
const reject = (overrides: object = {}): Command => ({
  ...{ kind: "reject", approvalId, reviewer: bob, comment: "no", nowMs },
  ...overrides,
});
const edit = { argumentsJson: '{"amount":5,"order":"o-1"}', argumentsHash: OTHER_HASH };

function run(...commands: readonly Command[]): { state: State; outcome: string; events: readonly Event[] } {
  let state = initial();
  let outcome = "";
  let events: readonly Event[] = [];
  for (const command of commands) {
    const decided = decide(state, command);
    events = decided.kind === "accepted" ? decided.events : [];
    outcome =
      decided.kind === "refused"
        ? decided.refusal.kind
        : events.map((event) => (event.kind === "resolved" ? event.ending.end : event.kind)).join(", ");
    for (const event of events) state = evolve(state, event);
    if (decided.kind === "accepted" && command.kind !== "expire") {
      expect(decide(state, command)).toEqual({ kind: "accepted", events: [] }); // a repeat changes nothing
    }
  }
  return { state, outcome, events };
}

describe("arguments that a reviewer changes", () => {
  test("are what the yes is to, and what was asked is kept beside them", () => {
    const { outcome, events } = run(request(), approve({ edit }));
    expect(outcome).toBe("edited, voted, approved");
    expect(events.at(-1)).toMatchObject({
      binding: { argumentsHash: HASH },
      edit: { ...edit, reviewer: "alice" },
      votes: [{ reviewer: "alice", argumentsHash: OTHER_HASH }],
    });
  });

  const two = request({ need: { quorum: 2 } });
  test.each<[name: string, commands: Command[], outcome: string]>([
    [
      "two at once: the second saw what is not there any more",
      [approve({ edit }), approve({ reviewer: bob, edit: { ...edit, argumentsHash: "c".repeat(64) } })],
      "arguments changed",
    ],
    ["a yes to the old ones comes too late", [approve({ edit }), approve({ reviewer: bob })], "arguments changed"],
    [
      "a yes to the new ones completes it",
      [approve({ edit }), approve({ reviewer: bob, argumentsHash: OTHER_HASH })],
      "voted, approved",
    ],
    [
      "earlier yeses were to other arguments, so they do not count",
      [approve(), approve({ reviewer: bob, edit })],
      "edited, voted",
    ],
    [
      "who said yes to the old ones may say yes to the new ones",
      [approve(), approve({ reviewer: bob, edit }), approve({ argumentsHash: OTHER_HASH })],
      "voted, approved",
    ],
    ["changed to what they are, they are not changed", [approve({ edit: { ...edit, argumentsHash: HASH } })], "voted"],
    ["a no ends it all the same", [approve({ edit }), reject()], "voted, rejected"],
  ])("%s", (_, commands, outcome) => {
    expect(run(two, ...commands).outcome).toBe(outcome);
  });
});

describe("identical calls of one session", () => {
  test("wait for one answer, which ends them all", () => {
    const { events, state } = run(request(), more(2), more(3), approve({ calls: 3 }));
    expect(events.map((event) => event.kind)).toEqual(["voted", "resolved", "resolved", "resolved"]);
    expect([...state.ended.values()].map(({ binding, ending }) => [binding.approvalId, ending?.end])).toEqual(
      [1, 2, 3].map((n) => [uuid(n), "approved"]),
    );
    expect([state.pending.size, state.joined.size, state.alike.size, state.pendingText]).toEqual([0, 0, 0, 0]);
  });

  test.each<[name: string, commands: Command[], outcome: string]>([
    ["a yes that saw fewer of them", [request(), more(2), approve({ calls: 1 })], "calls joined"],
    ["a yes that saw more of them", [request(), more(2), approve({ calls: 3 })], "calls joined"],
    ["a no counts for all, seen or not", [request(), more(2), reject()], "voted, rejected, rejected"],
    [
      "the answer may name any of them",
      [request(), more(2), reject({ approvalId: uuid(2) })],
      "voted, rejected, rejected",
    ],
    ["other arguments", [request(), more(2, { argumentsHash: OTHER_HASH })], "requested"],
    ["another tool digest", [request(), more(2, { toolDigest: OTHER_HASH })], "requested"],
    ["other people", [request(), more(2, { need: { quorum: 2 } })], "requested"],
    ["under another policy", [request(), more(2, { policyRevision: OTHER_HASH })], "requested"],
    ["another session", [request(), request({ approvalId: uuid(2) })], "requested"],
    [
      "one that somebody has answered",
      [request({ need: { quorum: 2 } }), approve(), more(2, { need: { quorum: 2 } })],
      "requested",
    ],
    ["one that has ended", [request(), approve(), more(2)], "requested"],
    ["one that is alike", [request(), more(2)], "joined"],
    [
      "silence ends them together",
      [request(), more(2), { kind: "expire", nowMs: NOW_MS + TTL_MS }],
      "expired, expired",
    ],
  ])("%s", (_, commands, outcome) => {
    expect(run(...commands).outcome).toBe(outcome);
  });

  test("the first is withdrawn: the others go on waiting, as the next of them", () => {
    const cancel = (n: number): Command => ({ kind: "cancel", approvalId: uuid(n), by: "broker", reason: "", nowMs });
    const { state } = run(request(), more(2), more(3), cancel(1));
    expect([...state.pending.keys()]).toEqual([uuid(2)]);
    expect(run(request(), more(2), more(3), cancel(1), approve({ approvalId: uuid(2), calls: 2 })).outcome).toBe(
      "voted, approved, approved",
    );
    expect(run(request(), more(2), more(3), cancel(2), approve({ calls: 2 })).outcome).toBe(
      "voted, approved, approved",
    );
  });
});

describe("a yes to calls that are still to come", () => {
  const untilMs = nowMs + 600_000;
  const grant = { uses: 2, untilMs, bounds: [] };
  const within = { uses: 5, untilMs, bounds: [{ argument: "amount", max: 50 }] };
  const other = (n: number, args: object, binding: Options = {}) =>
    more(
      n,
      { argumentsHash: n.toString(16).repeat(64).slice(0, 64), ...binding },
      { argumentsJson: JSON.stringify(args) },
    );

  test("lets the next ones run, and says so, until they are used up", () => {
    const { state, outcome } = run(request(), approve({ grant }), more(2), more(3), more(4));
    expect(outcome).toBe("requested");
    expect(state.grants.get(approvalId)).toMatchObject({ by: "alice", uses: 2, used: 2 });
    expect(state.ended.get(uuid(2))?.ending).toMatchObject({ end: "approved", by: ["alice"], grantId: approvalId });
  });

  const granted = [request(), approve({ grant })];
  const bounded = [request(), approve({ grant: within })];
  test.each<[name: string, commands: Command[], outcome: string]>([
    ["an identical call", [...granted, more(2)], "requested, approved"],
    ["other arguments", [...granted, other(2, { amount: 20, order: "o-2" })], "requested"],
    ["another session", [...granted, request({ approvalId: uuid(2) })], "requested"],
    [
      "another user",
      [...granted, more(2, { principal: { ...newApproval().binding.principal, user: "eve" } })],
      "requested",
    ],
    ["another policy", [...granted, more(2, { policyRevision: OTHER_HASH })], "requested"],
    ["more people asked", [...granted, more(2, { need: { quorum: 2 } })], "requested"],
    [
      "a session that has touched more",
      [...granted, more(2, {}, { labels: ["private-data", "untrusted-input"] })],
      "requested",
    ],
    [
      "one that was revoked",
      [...granted, { kind: "revoke", grantId: approvalId, by: "bob", nowMs }, more(2)],
      "requested",
    ],
    ["within the bound", [...bounded, other(2, { amount: 50, order: "o-1" })], "requested, approved"],
    ["above the bound", [...bounded, other(2, { amount: 50.01, order: "o-1" })], "requested"],
    ["below nothing", [...bounded, other(2, { amount: -1, order: "o-1" })], "requested"],
    ["a bound that is no number any more", [...bounded, other(2, { amount: "20", order: "o-1" })], "requested"],
    ["another argument besides", [...bounded, other(2, { amount: 20, order: "o-1", note: "x" })], "requested"],
    ["another order within the bound", [...bounded, other(2, { amount: 20, order: "o-2" })], "requested"],
    ["a secret that cannot be compared", [...bounded, other(2, { amount: 20, order: "[masked]" })], "requested"],
  ])("%s", (_, commands, outcome) => {
    expect(run(...commands).outcome).toBe(outcome);
  });

  test.each<[name: string, giver: Reviewer | undefined]>([
    ["has left the group", reviewer("alice", "interns")],
    ["is in no group any more", reviewer("alice")],
    ["is nobody any more", undefined],
  ])("counts for nothing once its giver %s", (_, giver) => {
    const next = { ...more(2), givers: giver === undefined ? [bob] : [bob, giver] } as Command;
    expect(run(...granted, next).outcome).toBe("requested");
    expect(run(...granted, next, more(3)).outcome).toBe("requested, approved");
  });

  test("is over when its time is", () => {
    const late = { ...more(2), nowMs: untilMs } as Command;
    expect(run(...granted, late).outcome).toBe("requested");
  });

  test.each<[name: string, terms: Approve["grant"], need: Options]>([
    ["no calls", { uses: 0, untilMs, bounds: [] }, {}],
    ["too many calls", { uses: 101, untilMs, bounds: [] }, {}],
    ["a time that is over", { uses: 1, untilMs: nowMs, bounds: [] }, {}],
    ["a time too long", { uses: 1, untilMs: nowMs + 8 * 3_600_000 + 1, bounds: [] }, {}],
    ["a bound on what is no number", { uses: 1, untilMs, bounds: [{ argument: "order", max: 1 }] }, {}],
    ["a bound on what is not there", { uses: 1, untilMs, bounds: [{ argument: "toString", max: 1 }] }, {}],
    ["a bound below what it is", { uses: 1, untilMs, bounds: [{ argument: "amount", max: 19 }] }, {}],
    ["a bound that is none", { uses: 1, untilMs, bounds: [{ argument: "amount", max: Number.POSITIVE_INFINITY }] }, {}],
    ["where two people are asked", grant, { need: { quorum: 2 } }],
    ["where two groups are asked", grant, { need: { groups: ["finance", "leads"] } }],
  ])("is refused, and nothing decided: %s", (_, terms, binding) => {
    const { outcome, state } = run(request(binding), approve(terms === undefined ? {} : { grant: terms }));
    expect(outcome).toBe("grant invalid");
    expect(state.pending.get(approvalId)?.votes).toEqual([]);
  });
});

describe("questions", () => {
  const ask: Command = { kind: "ask", approvalId, reviewer: alice, questionId: uuid(7), text: "Why?", nowMs };
  const answer: Command = { kind: "answer", approvalId, questionId: uuid(7), text: "Because.", nowMs };
  test.each<[name: string, commands: Command[], outcome: string]>([
    ["are asked by who may answer", [request(), ask], "asked"],
    ["not by others", [request(), { ...ask, reviewer: reviewer("eve") }], "not eligible"],
    ["are answered, and the approval goes on waiting", [request(), ask, answer], "answered"],
    ["are answered only where they were asked", [request(), answer], "question not found"],
    ["not once it has ended", [request(), approve(), ask], "already decided"],
    ["nor answered then", [request(), ask, approve(), answer], "already decided"],
    [
      "not without end",
      [request(), ...Array.from({ length: 11 }, (_, i) => ({ ...ask, questionId: uuid(20 + i) }))],
      "too many questions",
    ],
  ])("%s", (_, commands, outcome) => {
    expect(run(...commands).outcome).toBe(outcome);
  });
});

describe("what counts once", () => {
  const once = { key: "sig", attempt: "a1", untilMs: nowMs + 1000 };
  const two = request({ need: { quorum: 2 } });
  test("an answer with a proof that was used before is refused", () => {
    expect(run(two, approve({ once })).outcome).toBe("claimed, voted");
    const again = { ...once, attempt: "a2" };
    expect(run(two, approve({ once }), approve({ reviewer: bob, once: again })).outcome).toBe("replayed");
  });

  test("a thing is claimed once, and only in its time", () => {
    const claim: Command = { kind: "claim", ...once, nowMs };
    expect(run(claim).outcome).toBe("claimed");
    expect(run(claim, { ...claim, attempt: "a2" }).outcome).toBe("replayed");
    expect(run({ ...claim, nowMs: once.untilMs }).outcome).toBe("replayed");
  });
});

describe("faster than anybody can read", () => {
  const hastyAfter = (createdMs: number, ...before: Command[]) => {
    const { events } = run(request({ need: { quorum: 3 } }), ...before, approve({ nowMs: NOW_MS + createdMs }));
    const vote = events.find((event) => event.kind === "voted");
    return vote?.kind === "voted" && vote.vote.hasty;
  };
  test("is flagged, and nothing else", () => {
    expect([500, 60_000].map((ms) => hastyAfter(ms))).toEqual([true, false]);
  });
  test("also when another was answered the moment before", () => {
    const elsewhere = [request({ approvalId: uuid(2) }), approve({ approvalId: uuid(2), nowMs: NOW_MS + 59_500 })];
    expect(hastyAfter(60_000, ...elsewhere)).toBe(true);
  });
});

describe("messages", () => {
  const first = { address: "", shows: 1, reminders: 0, timeMs: nowMs };
  const tell = (was: typeof first | undefined, told: typeof first): Command => ({
    ...{ kind: "tell", approvalId, channel: "slack" },
    was,
    told,
  });
  test("of two who tell at once, one learns that it came second", () => {
    expect(run(request(), tell(undefined, first)).outcome).toBe("told");
    expect(run(request(), tell(undefined, first), tell(undefined, { ...first, timeMs: nowMs + 1 })).outcome).toBe(
      "told already",
    );
    expect(run(request(), tell(undefined, first), tell(first, { ...first, address: "C1/2" })).outcome).toBe("told");
  });
});
