import type { CallScope } from "./call-scope.ts";
import { RpcError } from "./errors.ts";

/** What the streams of every transport share. */

export const END = { done: true, value: undefined } as const;

export async function* one<T>(value: T): AsyncIterable<T> {
  yield value;
}

/** Not awaited: a generator that waits for something answers `return` only after that. */
export function close(iterator: AsyncIterator<unknown>): void {
  iterator.return?.().catch(() => {}); // what it throws on its way out has nobody left to hear it
}

/**
 * A call's requests as its handler sees them: it never waits for one after the call is over, and a request that cannot
 * be had or read ends the call.
 */
export function requestsOf<T, M>(
  source: AsyncIterator<T>,
  scope: CallScope,
  read: (item: T) => M,
): AsyncIterableIterator<M, undefined> {
  scope.onEnd(() => close(source));
  const requests: AsyncIterableIterator<M, undefined> = {
    [Symbol.asyncIterator]: () => requests,
    next: async () => {
      try {
        const step = await scope.race(source.next());
        return step.done === true ? END : { done: false, value: read(step.value) };
      } catch (thrown) {
        const failure = RpcError.from(thrown);
        scope.fail(failure);
        throw failure;
      }
    },
    return: async () => {
      close(source);
      return END;
    },
  };
  return requests;
}
