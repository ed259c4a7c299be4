/**
 * A service's state machine: pure, synchronous, no clock, no randomness, no I/O. Time and ids come inside the command.
 * `Executor` (executor.ts) gives every decider loading, caching, batching, snapshots and conflict retry.
 */
export type Decider<State, Command, Event, Refusal> = {
  readonly initial: () => State;
  /** Reads only. A refusal changes nothing; no events is an acceptance that changes nothing (an idempotent repeat). */
  readonly decide: (state: State, command: Command) => Decided<Event, Refusal>;
  /** Total over every event ever written. May change `state` in place: the executor owns it and nobody else holds it. */
  readonly evolve: (state: State, event: Event) => State;
  /** All events of one append go into one record, a JSON list: for a stream of very many small events. */
  readonly packed?: true;
  /** Events and snapshots as JSON values (bigint as decimal strings). The `from` side throws on what it does not know. */
  readonly eventToJson: (event: Event) => unknown;
  readonly eventFromJson: (json: unknown) => Event;
  readonly stateToJson: (state: State) => unknown;
  readonly stateFromJson: (json: unknown) => State;
};

export type Decided<Event, Refusal> =
  | { readonly kind: "accepted"; readonly events: readonly Event[] }
  | { readonly kind: "refused"; readonly refusal: Refusal };
