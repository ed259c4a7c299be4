/**
 * How deep calls may nest: an agent's own call has depth 0, what its program calls depth 1. A call of this depth calls
 * nothing. Fixed, because broker and runner must agree: the runner keeps a place for each level, so that no chain of
 * calls waits for a worker that it holds itself.
 */
export const MAX_DEPTH = 3;

/** Calls that one program may have under way at once; more wait their turn. */
export const MAX_AT_ONCE = 16;
