import type { OutputStream } from "./backend.ts";

export type OutputChunk = { readonly stream: OutputStream; readonly text: string };

/**
 * What a sandbox wrote, on its way to the caller. It holds all that the caller has not taken: no more than the output
 * limit of both streams, so a slow caller costs memory that is bounded and never holds up the sandbox.
 */
export class OutputQueue implements AsyncIterable<OutputChunk> {
  #chunks: OutputChunk[] = [];
  #closed = false;
  #changed = Promise.withResolvers<void>();

  readonly push = (stream: OutputStream, text: string): void => {
    this.#chunks.push({ stream, text });
    this.#changed.resolve();
  };

  readonly close = (): void => {
    this.#closed = true;
    this.#changed.resolve();
  };

  async *[Symbol.asyncIterator](): AsyncGenerator<OutputChunk> {
    for (;;) {
      const closed = this.#closed;
      const taken = this.#chunks;
      this.#chunks = [];
      yield* taken;
      if (closed) return;
      if (this.#chunks.length === 0) await this.#changed.promise;
      this.#changed = Promise.withResolvers();
    }
  }
}
