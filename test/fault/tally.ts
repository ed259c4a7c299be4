import type { Decider } from "../../services/shared/decider.ts";

/** The smallest decider that shows a loss, a doubling or a half: each command leaves `parts` events, all or none. */
export type TallyState = Map<string, number>;
export type TallyCommand = { readonly kind: "add"; readonly id: string; readonly parts: number };
export type TallyEvent = { readonly kind: "added"; readonly id: string; readonly part: number; readonly parts: number };

export const tallyDecider: Decider<TallyState, TallyCommand, TallyEvent, never> = {
  initial: () => new Map(),
  decide: (state, { id, parts }) => {
    if (state.has(id)) return { kind: "accepted", events: [] };
    return {
      kind: "accepted",
      events: Array.from({ length: parts }, (_, part) => ({ kind: "added", id, part, parts })),
    };
  },
  evolve: (state, { id }) => state.set(id, (state.get(id) ?? 0) + 1),
  eventToJson: (event) => event,
  eventFromJson: (json) => json as TallyEvent,
  stateToJson: (state) => [...state],
  stateFromJson: (json) => new Map(json as [string, number][]),
};
