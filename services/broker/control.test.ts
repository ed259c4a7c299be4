import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type ControlCommand, type ControlState, controlDecider, type KillSwitch, switchAgainst } from "./control.ts";
import { NOW_MS, PRINCIPAL } from "./fixture.ts";

const { initial, decide, evolve, eventToJson, eventFromJson, stateToJson, stateFromJson } = controlDecider;

function on(scope: string, reason = "An incident."): Extract<ControlCommand, { kind: "switch_on" }> {
  return { kind: "switch_on", killSwitch: { scope, reason, author: "olga", timeMs: NOW_MS } };
}

function off(scope: string): ControlCommand {
  return { kind: "switch_off", scope, reason: "It is over.", author: "olga" };
}

function eventsOf(state: ControlState, command: ControlCommand) {
  const decided = decide(state, command);
  if (decided.kind === "refused") throw new Error("nothing is refused here");
  return decided.events;
}

function stateAfter(...commands: readonly ControlCommand[]): ControlState {
  return commands.reduce((state, command) => eventsOf(state, command).reduce(evolve, state), initial());
}

describe("turning switches", () => {
  test("on, and off again", () => {
    expect([...stateAfter(on("demo/tenant")).values()]).toEqual([on("demo/tenant").killSwitch]);
    expect(stateAfter(on("demo/tenant"), off("demo/tenant")).size).toBe(0);
  });

  test.each<[string, ControlState, ControlCommand]>([
    ["on twice for one reason", stateAfter(on("demo/tenant")), on("demo/tenant")],
    ["off when it is off", stateAfter(), off("demo/tenant")],
    ["off for another scope", stateAfter(on("demo/tenant")), off("everything")],
  ])("%s changes nothing", (_, state, command) => expect(eventsOf(state, command)).toEqual([]));

  test("a new reason replaces the old one", () => {
    const state = stateAfter(on("demo/tenant"), on("demo/tenant", "Another incident."));
    expect(state.get("demo/tenant")?.reason).toBe("Another incident.");
  });
});

describe("what a switch stops", () => {
  const scopes = ["everything", "demo/tenant", "demo/agent:demo-agent", "demo/session:s1", "demo/tool:orders.lookup"];

  test.each(scopes)("%s", (scope) => {
    expect(switchAgainst(stateAfter(on(scope)), PRINCIPAL, "orders.lookup")?.scope).toBe(scope);
  });

  test.each([
    "other/tenant",
    "other/agent:demo-agent",
    "demo/agent:demo",
    "demo/session:s2",
    "demo/tool:orders",
    "demo/tool:orders.refund",
    "demo/session:demo-agent",
  ])("not %s", (scope) => expect(switchAgainst(stateAfter(on(scope)), PRINCIPAL, "orders.lookup")).toBeUndefined());

  test("the widest is named", () => {
    for (let i = 0; i < scopes.length; i++) {
      const state = stateAfter(
        ...scopes
          .slice(i)
          .toReversed()
          .map((scope) => on(scope)),
      );
      expect(switchAgainst(state, PRINCIPAL, "orders.lookup")?.scope).toBe(scopes[i]);
    }
  });
});

test("any history: a switch is on exactly when it was turned on last, also when rebuilt from the record", () => {
  const scope = fc.constantFrom("everything", "demo/tenant", "demo/agent:a");
  const command = fc.oneof(
    fc.tuple(scope, fc.constantFrom("one", "two")).map(([of, reason]) => on(of, reason)),
    scope.map(off),
  );
  fc.assert(
    fc.property(fc.array(command, { maxLength: 40 }), fc.nat(), (commands, cut) => {
      let state = initial();
      const events = [];
      const model = new Map<string, KillSwitch["reason"]>();
      for (const item of commands) {
        const happened = eventsOf(state, item).map((event) =>
          eventFromJson(JSON.parse(JSON.stringify(eventToJson(event)))),
        );
        events.push(...happened);
        state = happened.reduce(evolve, state);
        if (item.kind === "switch_on") model.set(item.killSwitch.scope, item.killSwitch.reason);
        else model.delete(item.scope);
      }
      expect(new Map([...state].map(([of, { reason }]) => [of, reason]))).toEqual(model);
      const at = cut % (events.length + 1);
      const half = stateFromJson(
        JSON.parse(JSON.stringify(stateToJson(events.slice(0, at).reduce(evolve, initial())))),
      );
      expect(events.slice(at).reduce(evolve, half)).toEqual(state);
    }),
  );
});
