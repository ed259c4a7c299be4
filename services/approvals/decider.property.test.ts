import fc from "fast-check";
import { expect, test } from "vitest";
import { type Approval, currentHash, type Event, type NewApproval, type Vote } from "./approval.ts";
import type { Command } from "./commands.ts";
import { decide, decider } from "./decider.ts";
import { evolve } from "./evolve.ts";
import { alice, bob, carol, HASH, mallory, NOW_MS, newApproval, OTHER_HASH, reviewer, uuid } from "./fixture.ts";
import { findApproval, initial, type State } from "./state.ts";

/** Histories of a few approvals, voters and clocks, so small that everything meets everything. */

const uma = reviewer("uma", "leads");
const dan = {
  ...reviewer("dan"),
  standsFor: [
    { name: "alice", groups: ["leads"] },
    { name: "uma", groups: ["leads"] },
  ],
};
const approvalId = fc.integer({ min: 1, max: 5 }).map(uuid);
const who = fc.constantFrom(alice, bob, carol, mallory, uma, dan, dan);
const EVERYBODY = [alice, bob, carol, mallory, uma, dan];
const nowMs = fc.integer({ min: 0, max: 20 }).map((n) => NOW_MS + n);
const comment = fc.string({ maxLength: 3 });
const argumentsHash = fc.constantFrom(HASH, HASH, HASH, OTHER_HASH);
const SESSION = newApproval().binding.principal;

const requests: fc.Arbitrary<Command> = fc
  .record({
    approvalId,
    nowMs,
    ttlMs: fc.integer({ min: 1, max: 25 }),
    quorum: fc.constantFrom(1, 1, 1, 2),
    groups: fc.constantFrom(["leads"], ["leads"], ["leads"], ["finance", "leads"], []),
    argumentsHash: fc.constantFrom(HASH, HASH, OTHER_HASH),
    amount: fc.constantFrom(20, 20, 30, 90),
    /** Now and then alice has left her group, or nobody is known any more. */
    givers: fc.constantFrom(EVERYBODY, EVERYBODY, EVERYBODY, [reviewer("alice"), carol], []),
  })
  .map(({ approvalId: id, nowMs: at, ttlMs, quorum, groups, argumentsHash: hash, amount, givers }): Command => {
    const binding = { approvalId: id, principal: SESSION, argumentsHash: hash, need: { quorum, groups } };
    const approval = newApproval(binding, { expiresAtMs: at + ttlMs });
    const shown = { ...approval.shown, argumentsJson: JSON.stringify({ amount, order: "o-1" }) };
    return { kind: "request", givers, approval: { ...approval, shown, createdAtMs: at }, nowMs: at };
  });

const terms = fc.record({
  uses: fc.integer({ min: 0, max: 2 }),
  untilMs: fc.integer({ min: 5, max: 25 }).map((n) => NOW_MS + n),
  bounds: fc.constantFrom([], [{ argument: "amount", max: 40 }]),
});
const approvals: fc.Arbitrary<Command> = fc.record(
  {
    kind: fc.constant("approve" as const),
    approvalId,
    reviewer: who,
    argumentsHash,
    calls: fc.constantFrom(1, 1, 1, 2),
    comment,
    nowMs,
    edit: fc.constant({ argumentsJson: '{"amount":20,"order":"o-9"}', argumentsHash: "c".repeat(64) }),
    grant: terms,
    once: fc.record({
      key: fc.constantFrom("k1", "k2"),
      attempt: fc.constantFrom("a1", "a2"),
      untilMs: fc.constant(NOW_MS + 30),
    }),
  },
  { requiredKeys: ["kind", "approvalId", "reviewer", "argumentsHash", "calls", "comment", "nowMs"] },
);

/** So that grants are reached as often as the rest. */
const grants: fc.Arbitrary<Command> = fc.record({
  kind: fc.constant("approve" as const),
  ...{ approvalId, comment, nowMs, grant: terms },
  reviewer: fc.constantFrom(alice, carol),
  argumentsHash: fc.constant(HASH),
  calls: fc.constant(1),
});

const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 5, arbitrary: grants },
  { weight: 5, arbitrary: requests },
  { weight: 8, arbitrary: approvals },
  fc.record({ kind: fc.constant("reject" as const), approvalId, reviewer: who, comment, nowMs }),
  fc.record({ kind: fc.constant("cancel" as const), approvalId, by: fc.constant("broker"), reason: comment, nowMs }),
  fc.record({ kind: fc.constant("expire" as const), nowMs }),
  fc.record({ kind: fc.constant("revoke" as const), grantId: approvalId, by: fc.constant("bob"), nowMs }),
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("absent" as const),
      absence: fc.record({
        reviewer: fc.constantFrom("alice", "alice", "uma"),
        standIn: fc.constantFrom("dan", "dan", ""),
        untilMs: fc.integer({ min: 15, max: 30 }).map((n) => NOW_MS + n),
      }),
      nowMs,
    }),
  },
  fc.record({
    kind: fc.constant("ask" as const),
    ...{ approvalId, reviewer: who, text: comment, nowMs },
    questionId: fc.constantFrom(uuid(100), uuid(101)),
  }),
);

/** Checks A1 to A6 by looking at the events only, and that every accepted command, sent again, changes nothing. */
class Checker {
  state: State = initial();
  readonly events: Event[] = [];
  readonly #requests = new Map<string, NewApproval>();
  readonly #ended = new Set<string>();
  readonly #uses = new Map<string, number>();
  readonly #revoked = new Set<string>();

  send(command: Command): void {
    const before = JSON.stringify(decider.stateToJson(this.state));
    const decided = decide(this.state, command);
    expect(JSON.stringify(decider.stateToJson(this.state))).toBe(before); // decide only reads
    if (decided.kind === "refused") return;
    for (const event of decided.events) {
      this.#check(event, command);
      this.events.push(event);
      const recorded = decider.eventFromJson(JSON.parse(JSON.stringify(decider.eventToJson(event))));
      expect(recorded).toEqual(event);
      this.state = evolve(this.state, recorded);
    }
    expect(decide(this.state, command)).toEqual({ kind: "accepted", events: [] });
  }

  #check(event: Event, command: Command): void {
    switch (event.kind) {
      case "requested":
        expect(this.#requests.has(event.approval.binding.approvalId)).toBe(false);
        this.#requests.set(event.approval.binding.approvalId, event.approval);
        return;
      case "joined": {
        const first = this.state.pending.get(event.approvalId);
        expect(first?.votes).toEqual([]);
        expect(first?.binding).toMatchObject({ argumentsHash: event.binding.argumentsHash, need: event.binding.need });
        const { approvalId: id } = event.binding;
        expect(this.#requests.has(id)).toBe(false);
        const asked = this.#requests.get(event.approvalId);
        if (asked !== undefined) this.#requests.set(id, { ...asked, binding: event.binding });
        return;
      }
      case "voted":
        expect(this.#ended.has(event.approvalId)).toBe(false);
        this.#checkVote(event.vote, this.#requests.get(event.approvalId));
        return;
      case "resolved":
        this.#checkEnd(event, command);
        expect(this.#ended.has(event.binding.approvalId)).toBe(false);
        this.#ended.add(event.binding.approvalId);
        return;
      case "revoked":
        this.#revoked.add(event.grantId);
        return;
      case "edited":
      case "asked":
        expect(this.#ended.has(event.approvalId)).toBe(false);
        return;
      default:
        return;
    }
  }

  #checkVote(vote: Vote, request: NewApproval | undefined): void {
    if (request === undefined) throw new Error("a vote on what was never asked");
    expect([vote.reviewer, vote.as]).not.toContain("uma");
    expect(vote.timeMs).toBeLessThan(request.expiresAtMs);
    const { groups } = request.binding.need;
    if (groups.length === 0) return;
    const own: Record<string, string[]> = {
      alice: ["leads"],
      bob: ["leads", "finance"],
      carol: ["leads"],
      mallory: ["finance"],
    };
    const able = own[vote.as === "" ? vote.reviewer : vote.as] ?? [];
    expect(vote.groups.length).toBeGreaterThan(0);
    for (const group of vote.groups) expect(able).toContain(group);
  }

  #checkEnd({ binding, votes, edit, ending, expiresAtMs }: Event & { kind: "resolved" }, command: Command): void {
    const hash = currentHash({ binding, edit } as Approval);
    const yeses = votes.filter((vote) => vote.approve && vote.argumentsHash === hash);
    expect(new Set(yeses.map((vote) => vote.as || vote.reviewer)).size).toBe(yeses.length);
    expect(new Set(yeses.map((vote) => vote.reviewer)).size).toBe(yeses.length);
    const nos = votes.filter((vote) => !vote.approve);
    expect(nos.length).toBe(ending.end === "rejected" ? 1 : 0);
    if (ending.end === "expired") expect(ending.timeMs).toBeGreaterThanOrEqual(expiresAtMs);
    if (ending.grantId !== "") this.#checkGrant(binding.approvalId, ending.grantId, command);
    else expect(canSeat(binding.need.groups, binding.need.quorum, yeses)).toBe(ending.end === "approved");
  }

  #checkGrant(approvalId: string, grantId: string, command: Command): void {
    const grant = this.state.grants.get(grantId);
    const asked = this.#requests.get(approvalId);
    if (grant === undefined || asked === undefined || command.kind !== "request") throw new Error("no such grant");
    const used = (this.#uses.get(grantId) ?? 0) + 1;
    this.#uses.set(grantId, used);
    expect(used).toBeLessThanOrEqual(grant.uses);
    expect(this.#revoked.has(grantId)).toBe(false);
    expect(command.nowMs).toBeLessThan(grant.untilMs);
    const { amount, order } = JSON.parse(asked.shown.argumentsJson);
    const isSame = asked.binding.argumentsHash === grant.argumentsHash;
    const isWithin = grant.bounds.length > 0 && amount <= 40 && order === JSON.parse(grant.argumentsJson).order;
    expect(isSame || isWithin).toBe(true);
    const giver = command.givers.find(({ name }) => name === grant.by);
    const places = giver === undefined ? [] : [giver, ...giver.standsFor];
    const { groups } = asked.binding.need;
    expect(places.some((place) => groups.length === 0 || place.groups.some((one) => groups.includes(one)))).toBe(true);
  }
}

/** Whether every group has its quorum, by trying who sits where: slow, and nothing like the decider's way. */
function canSeat(groups: readonly string[], quorum: number, yeses: readonly Vote[]): boolean {
  if (groups.length === 0) return yeses.length >= quorum;
  const seats = groups.flatMap((group) => Array.from({ length: quorum }, () => group));
  const [seat, ...rest] = seats;
  const fill = (wanted: string | undefined, left: readonly string[], people: readonly Vote[]): boolean =>
    wanted === undefined ||
    people.some(
      (one) =>
        one.groups.includes(wanted) &&
        fill(
          left[0],
          left.slice(1),
          people.filter((p) => p !== one),
        ),
    );
  return fill(seat, rest, yeses);
}

test("whatever happens: one end, a yes only by quorum and in time, never by who asked", () => {
  const reached = { approved: 0, granted: 0, joined: 0, edited: 0, stoodIn: 0 };
  fc.assert(
    fc.property(fc.array(command, { maxLength: 40, size: "max" }), (commands) => {
      const checker = new Checker();
      for (const one of commands) checker.send(one);
      for (const event of checker.events) {
        if (event.kind === "joined") reached.joined++;
        if (event.kind === "edited") reached.edited++;
        if (event.kind === "voted" && event.vote.as !== "") reached.stoodIn++;
        if (event.kind !== "resolved" || event.ending.end !== "approved") continue;
        reached.approved++;
        if (event.ending.grantId !== "") reached.granted++;
      }
    }),
    { numRuns: 3000 },
  );
  // They do reach what they are to prove.
  for (const [what, times] of Object.entries(reached)) expect(times, what).toBeGreaterThan(10);
});

test("state rebuilt from the record, from a snapshot, or half of each is the same", () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 40, size: "max" }), fc.nat(), (commands, at) => {
      const checker = new Checker();
      for (const one of commands) checker.send(one);
      const records = checker.events.map((event) => JSON.stringify(decider.eventToJson(event)));
      const half = at % (records.length + 1);
      const replay = (state: State, some: string[]) =>
        some.reduce((s, record) => evolve(s, decider.eventFromJson(JSON.parse(record))), state);
      const snapshot = JSON.stringify(decider.stateToJson(replay(initial(), records.slice(0, half))));
      const restored = replay(decider.stateFromJson(JSON.parse(snapshot)), records.slice(half));
      expect(restored).toEqual(checker.state);
      expect([...restored.ended.keys()]).toEqual([...checker.state.ended.keys()]);
      for (const id of [1, 2, 3, 4, 5].map(uuid))
        expect(findApproval(restored, id)).toEqual(findApproval(checker.state, id));
    }),
    { numRuns: 500 },
  );
});
