/**
 * What a run sends while it goes on, on its way to the caller. It holds all that the caller has not taken: no more than
 * the output limits and the calls that may be under way, so a slow caller costs memory that is bounded and never holds
 * up the sandbox.
 */
export class RunQueue<T> implements AsyncIterable<T> {
  #items: T[] = [];
  #closed = false;
  #changed = Promise.withResolvers<void>();

  readonly push = (item: T): void => {
    this.#items.push(item);
    this.#changed.resolve();
  };

  readonly close = (): void => {
    this.#closed = true;
    this.#changed.resolve();
  };

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const closed = this.#closed;
      const taken = this.#items;
      this.#items = [];
      yield* taken;
      if (closed) return;
      if (this.#items.length === 0) await this.#changed.promise;
      this.#changed = Promise.withResolvers();
    }
  }
}
