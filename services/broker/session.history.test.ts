import fc from "fast-check";
import { expect, test } from "vitest";
import { ALLOW, ASK, callOf, EXACT_ONLY, NOW_MS, REFUSED, refusalOf, SUCCEEDED } from "./fixture.ts";
import { judgeRepeat, NO_REPEATS } from "./guard/repeats.ts";
import { plainSignature } from "./guard/signature.ts";
import { type Call, type Outcome, summaryOf } from "./model.ts";
import { glance, type SessionCommand, type SessionEvent, type SessionState, sessionDecider } from "./session.ts";

/** Histories of one session, as several brokers and two agents could make them, held against S1 to S4. */

const { initial, decide, evolve, eventToJson, eventFromJson, stateToJson, stateFromJson } = sessionDecider;
const LIMITS = { ...EXACT_ONLY, exact_repeat_limit: 2 };
const POLICY_DENIED: Outcome = { kind: "refused", refusal: refusalOf({ reason: "POLICY_DENIED" }) };

/** A command whose basis is filled in when its turn comes: right, or of an earlier look at the session. */
type Plan = {
  readonly kind: SessionCommand["kind"];
  readonly call: Call;
  readonly attempt: string;
  readonly replaces: string | undefined;
  readonly stale: boolean;
  readonly outcome: Outcome;
  readonly label: string;
};

const plan: fc.Arbitrary<Plan> = fc
  .record({
    kind: fc.constantFrom<SessionCommand["kind"]>("park", "admit", "admit", "end", "end", "cancel"),
    id: fc.integer({ min: 1, max: 6 }),
    agent: fc.constantFrom("demo-agent", "demo-agent", "demo-agent", "other-agent"),
    attempt: fc.constantFrom("a", "b"),
    replaces: fc.constantFrom(undefined, undefined, "a", "b"),
    stale: fc.boolean(),
    outcome: fc.constantFrom(SUCCEEDED, REFUSED, POLICY_DENIED, { kind: "cancelled", reason: "enough" } as const),
    label: fc.constantFrom("", "private-data", "untrusted-input"),
  })
  // A call's tool, arguments and key follow from its id, as they do in life: 1 and 4 are the same but for the id.
  .map(({ id, agent, replaces, ...rest }) => ({
    ...rest,
    replaces: replaces === rest.attempt ? undefined : replaces,
    call: callOf({
      callId: `${agent}-${id}`,
      principal: { agent },
      argumentsJson: `{"n":${id % 3}}`,
      idempotencyKey: ["", "k1", "k2", "", "k1", "k1"][id - 1] ?? "",
    }),
  }));

function commandOf(state: SessionState, old: SessionState, item: Plan): SessionCommand {
  const { call, attempt, replaces, outcome, label } = item;
  const { labels, loop } = glance(item.stale ? old : state, call, LIMITS);
  const begun = { call, price: [], basis: { labels, loop: loop.level, limits: LIMITS } };
  switch (item.kind) {
    case "park":
      return { kind: "park", expiresMs: NOW_MS, decision: ASK, ...begun };
    case "admit": {
      const inPlaceOf = replaces === undefined ? {} : { replaces };
      return { kind: "admit", attempt, deadlineMs: NOW_MS, decision: ALLOW, ...begun, ...inPlaceOf };
    }
    case "end": {
      const ended = { call: summaryOf(call), decision: ALLOW, outcome, charged: [], receipt: undefined, endMs: NOW_MS };
      return { kind: "end", ...ended, attempts: [attempt], addLabels: label === "" ? [] : [label] };
    }
    case "cancel":
      return { kind: "cancel", callId: call.callId, reason: "enough" };
  }
}

/** What a reader of the record would hold the broker to. */
class Witness {
  readonly #last = new Map<string, SessionEvent["kind"]>();
  readonly #attempts = new Map<string, string>();
  readonly #keys = new Map<string, string>();
  readonly #agents = new Set<string>();
  readonly #signatures: string[] = [];
  #labels: readonly string[] = [];

  sees(event: SessionEvent, command: SessionCommand): void {
    const { callId } = event;
    const last = this.#last.get(callId);
    expect(last, `${event.kind} after the end of ${callId}`).not.toBe("ended");
    switch (event.kind) {
      case "parked":
        expect(last).toBeUndefined();
        this.#begins(event.call, command, last);
        break;
      case "admitted":
        if (last === "admitted") {
          expect(command.kind === "admit" && command.replaces).toBe(this.#attempts.get(callId));
        } else this.#begins(event.call, command, last);
        this.#attempts.set(callId, event.attempt);
        break;
      case "ended": {
        if (last === "admitted") {
          expect(command.kind === "end" && command.attempts).toContain(this.#attempts.get(callId));
        }
        this.#agents.add(event.call.principal.agent);
        expect(event.labels).toEqual(expect.arrayContaining([...this.#labels]));
        expect(event.labels).toEqual([...new Set(event.labels)].toSorted((a, b) => (a < b ? -1 : 1)));
        this.#labels = event.labels;
        const refused = event.outcome.kind === "refused" && event.outcome.refusal.reason !== "POLICY_DENIED";
        if (last === undefined && !refused) this.#signatures.push(plainSignature(event.call).key);
        break;
      }
      case "cancelling":
        expect(last).toBeDefined();
        return;
    }
    this.#last.set(callId, event.kind);
    expect(this.#agents.size).toBe(1);
  }

  #begins(call: Call, command: SessionCommand, last: SessionEvent["kind"] | undefined): void {
    if (command.kind !== "park" && command.kind !== "admit") throw new Error(`${command.kind} begins no call`);
    this.#agents.add(call.principal.agent);
    expect(command.basis.labels).toEqual(this.#labels);
    if (last !== undefined) return;
    expect(command.basis.loop).toBe(this.#verdictOn(plainSignature(call).key));
    expect(command.basis.loop).not.toBe("stopped");
    this.#signatures.push(plainSignature(call).key);
    if (call.idempotencyKey === "") return;
    expect(this.#keys.has(call.idempotencyKey)).toBe(false);
    this.#keys.set(call.idempotencyKey, call.callId);
  }

  #verdictOn(signature: string) {
    const inARow = this.#signatures.length - (this.#signatures.findLastIndex((s) => s !== signature) + 1);
    const window = inARow === 0 ? NO_REPEATS : { signature, count: inARow };
    return judgeRepeat(window, signature, LIMITS.exact_repeat_limit);
  }
}

test("any history keeps S1 to S4, is the same rebuilt from its record, and takes every repeat", () => {
  fc.assert(
    fc.property(fc.array(plan, { maxLength: 60 }), fc.nat(), (plans, cut) => {
      const witness = new Witness();
      const events: SessionEvent[] = [];
      let state = initial();
      for (const item of plans) {
        const old = events.slice(0, -1).reduce(evolve, initial());
        const command = commandOf(state, old, item);
        const before = JSON.stringify(stateToJson(state));
        const decided = decide(state, command);
        expect(JSON.stringify(stateToJson(state)), "decide only reads").toBe(before);
        if (decided.kind === "refused") continue;
        for (const event of decided.events) {
          witness.sees(event, command);
          const read = eventFromJson(JSON.parse(JSON.stringify(eventToJson(event))));
          events.push(read);
          state = evolve(state, read);
        }
        // The executor decides again what may have landed.
        if (command.kind !== "cancel") expect(decide(state, command)).toEqual({ kind: "accepted", events: [] });
      }
      const at = cut % (events.length + 1);
      const half = events.slice(0, at).reduce(evolve, initial());
      const snapshot = stateFromJson(JSON.parse(JSON.stringify(stateToJson(half))));
      expect(events.slice(at).reduce(evolve, snapshot)).toEqual(state);
      expect(events.reduce(evolve, initial())).toEqual(state);
    }),
    { numRuns: 1_000 },
  );
});
