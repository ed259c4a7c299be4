import type { Decider } from "../shared/decider.ts";
import type { Principal } from "./model.ts";

/** Kill switches. Stream `control`: one for all tenants, so that one look finds every switch. */

export type KillSwitch = {
  /** `everything`, or `<tenant>/` before tenant, agent:<a>, session:<s> or tool:<name>. */
  readonly scope: string;
  readonly reason: string;
  readonly author: string;
  readonly timeMs: number;
};

export type ControlState = Map<string, KillSwitch>;

export type ControlCommand =
  | { readonly kind: "switch_on"; readonly killSwitch: KillSwitch }
  | { readonly kind: "switch_off"; readonly scope: string; readonly reason: string; readonly author: string };

export type ControlEvent =
  | { readonly kind: "switched_on"; readonly killSwitch: KillSwitch }
  | { readonly kind: "switched_off"; readonly scope: string; readonly reason: string; readonly author: string };

export const CONTROL_STREAM = "control";

export const controlDecider: Decider<ControlState, ControlCommand, ControlEvent, never> = {
  initial: () => new Map(),
  decide: (state, command) => {
    switch (command.kind) {
      case "switch_on": {
        const known = state.get(command.killSwitch.scope);
        if (known?.reason === command.killSwitch.reason) return { kind: "accepted", events: [] };
        return { kind: "accepted", events: [{ kind: "switched_on", killSwitch: command.killSwitch }] };
      }
      case "switch_off": {
        const { scope, reason, author } = command;
        if (!state.has(scope)) return { kind: "accepted", events: [] };
        return { kind: "accepted", events: [{ kind: "switched_off", scope, reason, author }] };
      }
    }
  },
  evolve: (state, event) => {
    switch (event.kind) {
      case "switched_on":
        return state.set(event.killSwitch.scope, event.killSwitch);
      case "switched_off":
        state.delete(event.scope);
        return state;
    }
  },
  eventToJson: (event) => event,
  eventFromJson: (json) => json as ControlEvent,
  stateToJson: (state) => [...state],
  stateFromJson: (json) => new Map(json as [string, KillSwitch][]),
};

/** The switch that stops this call, the widest first. */
export function switchAgainst(state: ControlState, principal: Principal, tool: string): KillSwitch | undefined {
  if (state.size === 0) return undefined;
  const { tenant, agent, session } = principal;
  const scopes = ["everything", `${tenant}/tenant`, `${tenant}/agent:${agent}`, `${tenant}/session:${session}`];
  for (const scope of [...scopes, `${tenant}/tool:${tool}`]) {
    const found = state.get(scope);
    if (found !== undefined) return found;
  }
  return undefined;
}
