import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type PolicyCommand, type PolicyEvent, type PolicyState, policyDecider } from "./decider.ts";

/** The history of a tenant's policy, by generated commands of people who are many, hasty and sometimes dishonest. */

const PEOPLE = ["olga", "paul", "quinn"];
const idArb = fc.constantFrom("c1", "c2", "c3", "c4");
const personArb = fc.constantFrom(...PEOPLE);
const bundleArb = fc.constantFrom("b1", "b2", "b3");
const askedArb = fc.record({
  id: idArb,
  base: fc.integer({ min: 0, max: 3 }),
  author: personArb,
  reason: fc.constant("r"),
  timeMs: fc.constant(1),
  approvalsNeeded: fc.integer({ min: 0, max: 2 }),
  approverGroup: fc.constant(""),
});
const commandArb: fc.Arbitrary<PolicyCommand> = fc.oneof(
  fc.record({
    kind: fc.constant("store" as const),
    bundle: bundleArb,
    index: fc.integer({ min: 0, max: 1 }),
    count: fc.constant(2),
    data: fc.constant(""),
  }),
  fc.tuple(askedArb, bundleArb).map(([asked, bundle]): PolicyCommand => {
    const record = { revision: `r-${bundle}`, bundle, rules: 1, added: 1, removed: 0, diff: [], keyId: "" };
    return { kind: "push", record, ...asked };
  }),
  fc
    .tuple(askedArb, fc.integer({ min: 0, max: 4 }))
    .map(([asked, number]): PolicyCommand => ({ kind: "rollback", number, ...asked })),
  fc.record({ kind: fc.constant("approve" as const), id: idArb, by: personArb, timeMs: fc.constant(1) }),
  fc.record({
    kind: fc.constant("reject" as const),
    id: idArb,
    by: personArb,
    reason: fc.constant("r"),
    timeMs: fc.constant(1),
  }),
);

/** Two of the three bundles are there from the beginning, so that most pushes get somewhere. */
const STORED = ["b1", "b2"].flatMap((bundle): PolicyCommand[] =>
  [0, 1].map((index) => ({ kind: "store", bundle, index, count: 2, data: "" })),
);

/** What the history itself says, without the state: who approved what, and what became active when. */
function checkHistory(events: readonly PolicyEvent[]): void {
  let active = 0;
  const changes = new Map<
    string,
    { author: string; base: number; needed: number; approvedBy: Set<string>; number: number }
  >();
  const stored = new Set<string>();
  const proposed: string[] = [];
  for (const event of events) {
    switch (event.kind) {
      case "stored":
        expect(stored.has(`${event.bundle} ${event.index}`), "stored once").toBe(false);
        stored.add(`${event.bundle} ${event.index}`);
        break;
      case "proposed": {
        const { id, author, base, approvalsNeeded: needed, number } = event.change;
        expect(changes.has(id), "an id is one change's").toBe(false);
        expect(base, "P1: looked at against what is active").toBe(active);
        if (event.record !== undefined) {
          proposed.push(event.record.bundle);
          expect(event.record.number).toBe(proposed.length);
          for (const index of [0, 1]) expect(stored.has(`${event.record.bundle} ${index}`), "P4").toBe(true);
        }
        expect(number === 0 || proposed[number - 1] !== undefined).toBe(true);
        changes.set(id, { author, base, needed, approvedBy: new Set(), number });
        break;
      }
      case "approved": {
        const change = changes.get(event.id);
        expect(change?.author, "P2: never the author").not.toBe(event.by);
        expect(change?.approvedBy.has(event.by), "P2: each once").toBe(false);
        change?.approvedBy.add(event.by);
        break;
      }
      case "activated": {
        const change = changes.get(event.id);
        expect([change?.base, change?.number]).toEqual([active, event.number]);
        expect(change?.approvedBy.size, "P2: so many").toBe(change?.needed);
        active = event.number;
        break;
      }
      case "rejected":
      case "shadowed":
        break;
    }
  }
}

function run(commands: readonly PolicyCommand[]): { state: PolicyState; events: PolicyEvent[] } {
  let state = policyDecider.initial();
  const events: PolicyEvent[] = [];
  for (const command of commands) {
    const decided = policyDecider.decide(state, command);
    if (decided.kind === "refused") continue;
    for (const event of decided.events) {
      events.push(event);
      state = policyDecider.evolve(state, event);
    }
    // E3: decided again after it has landed, a command changes nothing more.
    const again = policyDecider.decide(state, command);
    expect(again.kind === "accepted" ? again.events : []).toEqual([]);
  }
  return { state, events };
}

describe("generated histories", () => {
  test("hold P1 to P4, and every command is idempotent", () => {
    let activated = 0;
    fc.assert(
      fc.property(fc.array(commandArb, { minLength: 10, maxLength: 60 }), (commands) => {
        const { events } = run([...STORED, ...commands]);
        checkHistory(events);
        activated += events.filter(({ kind }) => kind === "activated").length;
      }),
      { numRuns: 300 },
    );
    expect(activated).toBeGreaterThan(20);
  });

  test("read back from the record, or from a state written down, are the same", () => {
    fc.assert(
      fc.property(fc.array(commandArb, { maxLength: 40 }), (commands) => {
        const { state, events } = run(commands);
        const replayed = events.reduce(
          (before, event) =>
            policyDecider.evolve(
              before,
              policyDecider.eventFromJson(JSON.parse(JSON.stringify(policyDecider.eventToJson(event)))),
            ),
          policyDecider.initial(),
        );
        expect(replayed).toEqual(state);
        expect(policyDecider.stateFromJson(JSON.parse(JSON.stringify(policyDecider.stateToJson(state))))).toEqual(
          state,
        );
      }),
    );
  });
});
