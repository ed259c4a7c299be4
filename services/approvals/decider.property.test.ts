import fc from "fast-check";
import { expect, test } from "vitest";
import type { Event, NewApproval } from "./approval.ts";
import { type Command, decide, decider, evolve } from "./decider.ts";
import { alice, bob, carol, HASH, mallory, NOW_MS, newApproval, OTHER_HASH, uuid } from "./fixture.ts";
import { findApproval, initial, type State } from "./state.ts";

/** Histories of a few approvals, voters and clocks, so small that everything meets everything. */

const uma = { name: "uma", groups: ["leads"] };
const approvalId = fc.integer({ min: 1, max: 3 }).map(uuid);
const reviewer = fc.constantFrom(alice, bob, carol, mallory, uma);
const nowMs = fc.integer({ min: 0, max: 20 }).map((n) => NOW_MS + n);
const comment = fc.string({ maxLength: 3 });

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc
      .record({
        approvalId,
        nowMs,
        ttlMs: fc.integer({ min: 1, max: 25 }),
        quorum: fc.integer({ min: 1, max: 3 }),
        approverGroup: fc.constantFrom("leads", "leads", ""),
      })
      .map(({ approvalId: id, nowMs: at, ttlMs, quorum, approverGroup }): Command => {
        const approval = newApproval({ approvalId: id, quorum, approverGroup }, { expiresAtMs: at + ttlMs });
        return { kind: "request", approval, nowMs: at };
      }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("approve" as const),
      approvalId,
      reviewer,
      argumentsHash: fc.constantFrom(HASH, HASH, HASH, OTHER_HASH),
      comment,
      nowMs,
    }),
  },
  fc.record({ kind: fc.constant("reject" as const), approvalId, reviewer, comment, nowMs }),
  fc.record({ kind: fc.constant("cancel" as const), approvalId, by: fc.constant("broker"), reason: comment, nowMs }),
  fc.record({ kind: fc.constant("expire" as const), nowMs }),
);

/** Checks A1 to A4 by looking at the events only, and that every accepted command, sent again, changes nothing. */
class Checker {
  state: State = initial();
  readonly events: Event[] = [];
  readonly #requests = new Map<string, NewApproval>();
  readonly #yes = new Map<string, Set<string>>();
  readonly #no = new Map<string, number>();
  readonly #ended = new Set<string>();

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
    const id = event.kind === "voted" ? event.approvalId : "binding" in event ? event.binding.approvalId : undefined;
    if (id !== undefined) expect(this.#ended.has(id)).toBe(false);
    switch (event.kind) {
      case "requested":
        expect(this.#requests.has(event.approval.binding.approvalId)).toBe(false);
        this.#requests.set(event.approval.binding.approvalId, event.approval);
        return;
      case "voted":
        this.#checkVote(event, command);
        return;
      case "resolved":
        this.#checkEnd(event);
        this.#ended.add(event.binding.approvalId);
        return;
    }
  }

  #checkVote({ approvalId: id, vote }: Event & { kind: "voted" }, command: Command): void {
    const request = this.#requests.get(id);
    if (request === undefined) throw new Error("a vote on what was never asked");
    expect(vote.reviewer).not.toBe("uma");
    if (request.binding.approverGroup !== "") expect(vote.reviewer).not.toBe("mallory");
    expect(vote.timeMs).toBeLessThan(request.expiresAtMs);
    if (command.kind === "approve") expect(command.argumentsHash).toBe(HASH);
    const yes = this.#yes.get(id) ?? new Set();
    expect(yes.has(vote.reviewer)).toBe(false);
    if (vote.approve) this.#yes.set(id, yes.add(vote.reviewer));
    else this.#no.set(id, (this.#no.get(id) ?? 0) + 1);
  }

  #checkEnd({ binding: { approvalId: id, quorum }, ending, expiresAtMs }: Event & { kind: "resolved" }): void {
    const yes = this.#yes.get(id)?.size ?? 0;
    const no = this.#no.get(id) ?? 0;
    if (ending.end === "approved") expect([yes, no]).toEqual([quorum, 0]);
    else expect(yes).toBeLessThan(quorum);
    expect(no).toBe(ending.end === "rejected" ? 1 : 0);
    if (ending.end === "expired") expect(ending.timeMs).toBeGreaterThanOrEqual(expiresAtMs);
  }
}

test("whatever happens: one end, a yes only by quorum and in time, never by who asked", () => {
  let approved = 0;
  fc.assert(
    fc.property(fc.array(command, { maxLength: 40, size: "max" }), (commands) => {
      const checker = new Checker();
      for (const one of commands) checker.send(one);
      approved += checker.events.filter((e) => e.kind === "resolved" && e.ending.end === "approved").length;
    }),
    { numRuns: 1000 },
  );
  expect(approved).toBeGreaterThan(100); // the histories do reach what they are to prove
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
      for (const id of [1, 2, 3].map(uuid)) expect(findApproval(restored, id)).toEqual(findApproval(checker.state, id));
    }),
    { numRuns: 500 },
  );
});
