import { describe, expect, test } from "vitest";
import type { Binding, End, Event, Need } from "./approval.ts";
import type { Command } from "./commands.ts";
import { decide, decider, MAX_LIFETIME_MS, MAX_PENDING, MAX_PENDING_TEXT } from "./decider.ts";
import { evolve } from "./evolve.ts";
import {
  alice,
  bob,
  carol,
  givers,
  HASH,
  mallory,
  NOW_MS,
  newApproval,
  OTHER_HASH,
  reviewer,
  TTL_MS,
  uuid,
} from "./fixture.ts";
import { earliestExpiry, findApproval, initial, KEEP_ENDED, KEEP_ENDED_TEXT, type State } from "./state.ts";

const approvalId = uuid(1);
const nowMs = NOW_MS + 1000;
const lateMs = NOW_MS + TTL_MS;

function approve(overrides: Partial<Command & { kind: "approve" }> = {}): Command {
  return {
    kind: "approve",
    approvalId,
    reviewer: alice,
    argumentsHash: HASH,
    calls: 1,
    comment: "",
    nowMs,
    ...overrides,
  };
}
function reject(overrides: Partial<Command & { kind: "reject" }> = {}): Command {
  return { kind: "reject", approvalId, reviewer: alice, comment: "", nowMs, ...overrides };
}
function request(binding: Parameters<typeof newApproval>[0] = {}): Command {
  return { kind: "request", givers, approval: newApproval(binding), nowMs: NOW_MS };
}
const cancel: Command = { kind: "cancel", approvalId, by: "broker", reason: "killed", nowMs };
const expireNow: Command = { kind: "expire", nowMs };
const expireLate: Command = { kind: "expire", nowMs: lateMs };

/** Runs commands and gives back the state and the outcome of the last one, in short. */
function run(...commands: readonly Command[]): { state: State; outcome: string; events: readonly Event[] } {
  let state = initial();
  let outcome = "";
  let events: readonly Event[] = [];
  for (const command of commands) {
    const decided = decide(state, command);
    events = decided.kind === "accepted" ? decided.events : [];
    outcome = decided.kind === "refused" ? decided.refusal.kind : events.map(inShort).join(", ");
    for (const event of events) state = evolve(state, event);
  }
  return { state, outcome, events };
}

function inShort(event: Event): string {
  return event.kind === "resolved" ? event.ending.end : event.kind;
}

const two = request({ need: { quorum: 2 } });
const STATES = {
  unknown: [],
  pending: [request()],
  "one of two": [two, approve()],
  approved: [two, approve(), approve({ reviewer: bob })],
  rejected: [two, approve(), reject({ reviewer: bob })],
  expired: [two, approve(), expireLate],
  cancelled: [two, approve(), cancel],
} satisfies Record<string, Command[]>;

// "" is an acceptance that changes nothing.
const decided = "already decided";
const table: [name: string, command: Command, outcome: Record<keyof typeof STATES, string>][] = [
  ["request, quorum 1", request(), row("requested", "", "mismatch", "mismatch")],
  ["request, quorum 2", two, row("requested", "mismatch", "", "")],
  ["approve", approve(), row("not found", "voted, approved", "", "")],
  ["approve by another", approve({ reviewer: carol }), row("not found", "voted, approved", "voted, approved", decided)],
  [
    "approve other arguments",
    approve({ argumentsHash: OTHER_HASH }),
    row("not found", "arguments changed", "arguments changed", decided),
  ],
  [
    "approve by an outsider",
    approve({ reviewer: mallory }),
    row("not found", "not eligible", "not eligible", "not eligible"),
  ],
  ["approve too late", approve({ reviewer: carol, nowMs: lateMs }), row("not found", "overdue", "overdue", decided)],
  ["reject", reject(), row("not found", "voted, rejected", "already voted", decided)],
  ["reject by another", reject({ reviewer: carol }), row("not found", "voted, rejected", "voted, rejected", decided)],
  [
    "reject by an outsider",
    reject({ reviewer: mallory }),
    row("not found", "not eligible", "not eligible", "not eligible"),
  ],
  ["reject too late", reject({ reviewer: carol, nowMs: lateMs }), row("not found", "overdue", "overdue", decided)],
  ["cancel", cancel, row("not found", "cancelled", "cancelled", "")],
  ["expire, not due", expireNow, row("", "", "", "")],
  ["expire, due", expireLate, row("", "expired", "expired", "")],
];

function row(unknown: string, pending: string, oneOfTwo: string, ended: string) {
  return {
    unknown,
    pending,
    "one of two": oneOfTwo,
    approved: ended,
    rejected: ended,
    expired: ended,
    cancelled: ended,
  };
}

describe.each(table)("%s", (_, command, outcomes) => {
  test.each(Object.entries(outcomes))("on %s: %s", (state, outcome) => {
    expect(run(...STATES[state as keyof typeof STATES], command).outcome).toBe(outcome);
  });
});

describe("who may answer", () => {
  const uma = reviewer("uma", "leads");
  const bosses = { escalateGroup: "bosses", escalateAtMs: nowMs };
  const cases: [name: string, need: Partial<Need>, who: typeof alice, outcome: string][] = [
    ["a member of the group", {}, alice, "voted, approved"],
    ["anybody where no group is named", { groups: [] }, reviewer("zoe"), "voted, approved"],
    ["nobody by a group of a like name", { groups: ["lead"] }, alice, "not eligible"],
    ["never the user the agent acts for", {}, uma, "self approval"],
    ["never that user in other capitals", {}, reviewer("Uma", "leads"), "self approval"],
    ["never one of the agent's own name", {}, reviewer("demo-agent", "leads"), "self approval"],
    ["never the user where no group is named", { groups: [] }, uma, "self approval"],
    ["the user where policy wants a confirmation", { confirm: true }, uma, "voted, approved"],
    ["not the user from outside the group, though", { confirm: true }, reviewer("uma"), "not eligible"],
    ["never the agent, not to confirm either", { confirm: true }, reviewer("demo-agent", "leads"), "self approval"],
    ["a member of either of two groups, and then the other is asked", { groups: ["leads", "finance"] }, alice, "voted"],
    ["who is in both of two groups answers for one of them", { groups: ["leads", "finance"] }, bob, "voted"],
    ["the next group once its time has come", bosses, reviewer("bea", "bosses"), "voted, approved"],
    ["not before", { ...bosses, escalateAtMs: nowMs + 1 }, reviewer("bea", "bosses"), "not eligible"],
    ["nobody by a group that nothing escalates to", {}, reviewer("bea", "bosses"), "not eligible"],
  ];
  test.each(cases)("%s", (_, need, who, outcome) => {
    expect(run(request({ need }), approve({ reviewer: who })).outcome).toBe(outcome);
    const no = outcome.startsWith("voted") ? "voted, rejected" : outcome;
    expect(run(request({ need }), reject({ reviewer: who })).outcome).toBe(no);
  });

  test("eligibility is that of the click: who has left the group may not, however they stood before", () => {
    expect(run(two, approve(), approve({ reviewer: reviewer("bob") })).outcome).toBe("not eligible");
    expect(run(two, approve({ reviewer: reviewer("bob") }), approve({ reviewer: bob })).outcome).toBe("voted");
  });
});

describe("who may answer, of several groups and of people who are away", () => {
  const bothGroups = request({ need: { groups: ["finance", "leads"], quorum: 1 } });
  test.each<[name: string, reviewers: (typeof alice)[], ended: boolean]>([
    ["one of each", [alice, mallory], true],
    ["two of one group", [alice, carol], false],
    ["one who is in both, and one of either", [bob, alice], true],
    ["the same, the other way round", [alice, bob], true],
    ["one who is in both, and one of the other", [bob, mallory], true],
    ["two who are in both", [bob, reviewer("zoe", "finance", "leads")], true],
    ["one who is in both, alone", [bob], false],
  ])("all of several groups, each person for one: %s", (_, reviewers, ended) => {
    const { state } = run(bothGroups, ...reviewers.map((who) => approve({ reviewer: who })));
    expect(state.ended.has(approvalId)).toBe(ended);
  });

  describe("while somebody is away", () => {
    const away = (reviewerName: string, standIn: string, untilMs = lateMs): Command => ({
      kind: "absent",
      absence: { reviewer: reviewerName, standIn, untilMs },
      nowMs,
    });
    const dan = { ...reviewer("dan"), standsFor: [{ name: "alice", groups: ["leads"] }] };
    test.each<[name: string, commands: Command[], outcome: string]>([
      ["their stand-in answers in their place", [away("alice", "dan"), approve({ reviewer: dan })], "voted, approved"],
      ["nobody by merely saying so", [approve({ reviewer: dan })], "not eligible"],
      ["not somebody else", [away("alice", "eve"), approve({ reviewer: dan })], "not eligible"],
      ["not once the date has come", [away("alice", "dan", nowMs), approve({ reviewer: dan })], "not eligible"],
      [
        "not once they are back",
        [away("alice", "dan"), away("alice", "", nowMs - 1), approve({ reviewer: dan })],
        "not eligible",
      ],
      [
        "never in the place of who asked",
        [
          away("uma", "dan"),
          approve({ reviewer: { ...reviewer("dan"), standsFor: [{ name: "uma", groups: ["leads"] }] } }),
        ],
        "not eligible",
      ],
      [
        "never by who asked, in the place of another",
        [
          away("alice", "uma"),
          approve({ reviewer: { ...reviewer("uma"), standsFor: [{ name: "alice", groups: ["leads"] }] } }),
        ],
        "self approval",
      ],
      [
        "not with the groups they had, but with those they have",
        [away("alice", "dan"), approve({ reviewer: { ...dan, standsFor: [{ name: "alice", groups: [] }] } })],
        "not eligible",
      ],
    ])("%s", (_, commands, outcome) => {
      expect(run(request(), ...commands).outcome).toBe(outcome);
    });

    test("one place is answered for once, whoever sits in it", () => {
      const commands = [two, away("alice", "dan"), approve(), approve({ reviewer: dan })];
      expect(run(...commands).outcome).toBe("already voted");
      expect(run(two, away("alice", "dan"), approve({ reviewer: dan }), approve()).outcome).toBe("already voted");
    });

    test("nobody stands in for themself, and nobody is away for ever", () => {
      expect(run(away("alice", "Alice")).outcome).toBe("absence invalid");
      expect(run(away("alice", "bob", nowMs + 91 * 86_400_000)).outcome).toBe("absence invalid");
    });
  });
});

describe("what an approval is bound to", () => {
  const base = newApproval().binding;
  const others: { [K in Exclude<keyof Binding, "approvalId">]: Binding[K][] } = {
    ref: [
      { ...base.ref, session: "s2" },
      { ...base.ref, callId: uuid(9) },
    ],
    principal: (["tenant", "agent", "session", "user"] as const).map((key) => ({ ...base.principal, [key]: "other" })),
    tool: ["orders.cancel"],
    toolDigest: [OTHER_HASH],
    argumentsHash: [OTHER_HASH],
    policyRevision: [OTHER_HASH],
    need: [
      { ...base.need, groups: [] },
      { ...base.need, groups: ["finance"] },
      { ...base.need, quorum: 2 },
      { ...base.need, confirm: true },
    ],
  };
  const cases = Object.entries(others).flatMap(([field, values]) => values.map((value) => [field, value] as const));
  test.each(cases)("another %s (%j) under the same id is refused", (field, value) => {
    const { state } = run(request());
    const again = decide(state, request({ [field]: value }));
    expect(again).toEqual({ kind: "refused", refusal: { kind: "mismatch", approvalId, field } });
  });

  test("a retry later and with other words is the same request", () => {
    const approval = {
      ...newApproval({}, { expiresAtMs: NOW_MS + 1 }),
      shown: { ...newApproval().shown, reasons: [] },
    };
    expect(run(request(), { kind: "request", givers, approval, nowMs: lateMs }).outcome).toBe("");
  });
});

describe("bounds", () => {
  test.each([
    [NOW_MS, "expiry past"],
    [NOW_MS + 1, "requested"],
    [NOW_MS + MAX_LIFETIME_MS, "requested"],
    [NOW_MS + MAX_LIFETIME_MS + 1, "expiry too far"],
  ])("expiring at %d: %s", (expiresAtMs, outcome) => {
    const approval = newApproval({}, { expiresAtMs });
    expect(run({ kind: "request", givers, approval, nowMs: NOW_MS }).outcome).toBe(outcome);
  });

  test("more pending than can be held are refused, until some end", () => {
    const many = Array.from({ length: MAX_PENDING }, (_, i) => request({ approvalId: uuid(i + 1) }));
    const { state } = run(...many);
    const one = request({ approvalId: uuid(MAX_PENDING + 1) });
    expect(decide(state, one)).toEqual({ kind: "refused", refusal: { kind: "too many pending" } });
    const decided = decide(state, cancel);
    if (decided.kind === "accepted") decided.events.reduce(evolve, state);
    expect(decide(state, one).kind).toBe("accepted");
  });

  test("more text pending than can be held is refused", () => {
    const { state } = run(request());
    state.pendingText = MAX_PENDING_TEXT;
    const one = request({ approvalId: uuid(2) });
    expect(decide(state, one)).toEqual({ kind: "refused", refusal: { kind: "too many pending" } });
  });

  test("ended ones are forgotten, the oldest first", () => {
    const one = (i: number): Command[] => [request({ approvalId: uuid(i) }), { ...cancel, approvalId: uuid(i) }];
    const { state } = run(...Array.from({ length: KEEP_ENDED + 2 }, (_, i) => one(i)).flat());
    expect(state.ended.size).toBe(KEEP_ENDED);
    expect(findApproval(state, uuid(1))).toBeUndefined();
    expect(findApproval(state, uuid(2))).toBeDefined();
    expect(state.pendingText).toBe(0);
  });

  test("ended ones with long arguments are forgotten sooner", () => {
    const argumentsJson = JSON.stringify({ a: "x".repeat(200_000) });
    const big = (i: number): Command[] => {
      const approval = newApproval({ approvalId: uuid(i) });
      return [
        { kind: "request", givers, approval: { ...approval, shown: { ...approval.shown, argumentsJson } }, nowMs },
        { ...cancel, approvalId: uuid(i) },
      ];
    };
    const { state } = run(...Array.from({ length: 100 }, (_, i) => big(i)).flat());
    expect(state.endedText).toBeLessThanOrEqual(KEEP_ENDED_TEXT);
    expect(state.ended.size).toBe(Math.floor(KEEP_ENDED_TEXT / (argumentsJson.length + 160)));
  });

  test("the earliest expiry is that of what still waits", () => {
    const sooner = newApproval({ approvalId: uuid(2) }, { expiresAtMs: NOW_MS + 5000 });
    const { state } = run(request(), { kind: "request", givers, approval: sooner, nowMs: NOW_MS });
    expect(earliestExpiry(state)).toBe(NOW_MS + 5000);
    expect(run(request(), cancel).state.pending.size).toBe(0);
    expect(earliestExpiry(run(request(), cancel).state)).toBeUndefined();
  });
});

describe("the record", () => {
  const ends: [End, Command[]][] = [
    ["approved", STATES.approved],
    ["rejected", STATES.rejected],
    ["expired", STATES.expired],
    ["cancelled", STATES.cancelled],
  ];
  test.each(ends)("%s says by itself what ended, how, and who said what", (end, commands) => {
    const { events } = run(...commands);
    const last = events.at(-1);
    if (last?.kind !== "resolved") throw new Error("it did not end");
    expect(last.binding).toEqual(newApproval({ need: { quorum: 2 } }).binding);
    expect(last.ending.end).toBe(end);
    expect(last.votes.map((vote) => vote.reviewer)).toEqual(
      end === "approved" || end === "rejected" ? ["alice", "bob"] : ["alice"],
    );
    const by = { approved: ["alice", "bob"], rejected: ["bob"], expired: [], cancelled: ["broker"] };
    expect(last.ending.by).toEqual(by[end]);
  });

  test.each([
    ["an unknown kind", { kind: "escalated" }],
    [
      "a field too many",
      { kind: "voted", approvalId, vote: { reviewer: "a", approve: true, comment: "", timeMs: 1 }, x: 1 },
    ],
    ["a field too few", { kind: "voted", approvalId }],
    [
      "an end that is none",
      {
        kind: "resolved",
        binding: newApproval().binding,
        createdAtMs: 1,
        expiresAtMs: 2,
        votes: [],
        ending: { end: "maybe", by: [], reason: "", timeMs: 1 },
      },
    ],
    ["no object", null],
  ])("%s is thrown at, not dropped", (_, json) => {
    expect(() => decider.eventFromJson(json)).toThrow();
  });
});
