import type { CallScope } from "./call-scope.ts";
import { RpcError } from "./errors.ts";
import { type Frame, parseFailure, WINDOW } from "./nats-wire.ts";

/** The two directions of a stream over NATS, alike on either side. */

/** What comes in: numbered without a gap, held until it is taken, and no more of it than was granted. */
export class Inflow {
  readonly #grant: (count: number) => void;
  readonly #ready: Uint8Array[] = [];
  #nextSeq = 1;
  #taken = 0;
  #over: { readonly failure: RpcError | undefined } | undefined;
  #wake: (() => void) | undefined;

  constructor(grant: (count: number) => void) {
    this.#grant = grant;
  }

  take(frame: Frame | undefined, data: Uint8Array): void {
    if (this.#over !== undefined) return;
    switch (frame?.kind) {
      case "data":
        if (frame.seq !== this.#nextSeq) this.fail(gap(frame.seq, this.#nextSeq));
        else if (this.#ready.length >= 2 * WINDOW) this.fail(flood());
        else {
          this.#nextSeq++;
          this.#ready.push(data);
        }
        break;
      case "end":
        if (frame.seq !== this.#nextSeq - 1) this.fail(gap(frame.seq, this.#nextSeq - 1));
        else this.#over = { failure: undefined };
        break;
      case "failure":
        this.#over = { failure: parseFailure(data) };
        break;
      case "alive":
        return;
      case "answer":
      case "credit":
      case "cancel":
      case undefined:
        this.fail(
          new RpcError({
            code: "INTERNAL",
            reason: "FRAME_UNEXPECTED",
            message: "The other side sent what belongs in no stream.",
          }),
        );
    }
    this.#wake?.();
  }

  /** What has come before its end is still to be had; what has come before a failure of ours is not. */
  fail(failure: RpcError): void {
    if (this.#over !== undefined) return;
    this.#over = { failure };
    this.#ready.length = 0;
    this.#wake?.();
  }

  /** The next message; undefined at the end. @throws RpcError */
  async next(): Promise<Uint8Array | undefined> {
    while (this.#ready.length === 0 && this.#over === undefined) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const bytes = this.#ready.shift();
    if (bytes !== undefined) {
      this.#taken++;
      if (this.#taken >= WINDOW / 2) {
        this.#grant(this.#taken);
        this.#taken = 0;
      }
      return bytes;
    }
    if (this.#over?.failure !== undefined) throw this.#over.failure;
    return undefined;
  }
}

/** What goes out: as much as the other side has granted. */
export class Outflow {
  #credit: number;
  #seq = 0;
  #wake: (() => void) | undefined;

  constructor(credit: number) {
    this.#credit = credit;
  }

  grant(count: number): void {
    this.#credit = Math.min(this.#credit + count, 2 * WINDOW);
    this.#wake?.();
  }

  /** Sends all items and the end. `item` is undefined with the end. */
  async send<T>(
    items: AsyncIterator<T>,
    scope: CallScope,
    emit: (frame: Frame, item: T | undefined) => void,
  ): Promise<void> {
    for (;;) {
      while (this.#credit === 0) await scope.race(new Promise<void>((resolve) => (this.#wake = resolve)));
      const step = await scope.race(items.next());
      if (step.done === true) break;
      this.#credit--;
      this.#seq++;
      emit({ kind: "data", seq: this.#seq }, step.value);
    }
    emit({ kind: "end", seq: this.#seq }, undefined);
  }
}

function gap(got: number, want: number): RpcError {
  return new RpcError({
    code: "DATA_LOSS",
    reason: "STREAM_GAP",
    message: `The stream lost a message (number ${got} came where ${want} was due); ask again.`,
  });
}

function flood(): RpcError {
  return new RpcError({
    code: "RESOURCE_EXHAUSTED",
    reason: "STREAM_FLOOD",
    message: "The other side sent more than it was granted.",
  });
}
