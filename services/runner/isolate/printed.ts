/** How long output may gather before it goes out. */
const FLUSH_MS = 10;
const FLUSH_FLOOD_MS = 100;
/** So many are sent as they are printed: a program that then never lets go of the thread has been heard. */
const AT_ONCE = 100;

export type Chunk = {
  readonly stream: "stdout" | "stderr";
  /** Bytes left out just before the text. */
  readonly dropped: number;
  readonly text: string;
};

type Stream = { room: number; head: string; tail: string; dropped: number };

/**
 * What a run printed and the runner has not seen. The first of it goes out soon; beyond the limit only a tail is kept,
 * so that a flood costs the runner little. For the worker, so it imports nothing.
 */
export class Printed {
  readonly #limit: number;
  readonly #emit: (chunk: Chunk) => void;
  readonly #streams: { readonly stdout: Stream; readonly stderr: Stream };
  #timer: NodeJS.Timeout | undefined;
  #dueMs = 0;
  #writes = 0;

  constructor(limit: number, emit: (chunk: Chunk) => void) {
    this.#limit = limit;
    this.#emit = emit;
    const nothing = (): Stream => ({ room: limit, head: "", tail: "", dropped: 0 });
    this.#streams = { stdout: nothing(), stderr: nothing() };
  }

  write(stream: "stdout" | "stderr", text: string): void {
    const printed = this.#streams[stream];
    const head = text.slice(0, printed.room);
    printed.room -= head.length;
    printed.head += head;
    printed.tail += text.slice(head.length);
    const excess = printed.tail.length - this.#limit;
    if (excess > this.#limit) {
      printed.dropped += Buffer.byteLength(printed.tail.slice(0, excess));
      printed.tail = printed.tail.slice(excess);
    }
    if (++this.#writes <= AT_ONCE) {
      this.flush();
      return;
    }
    const wait = printed.room > 0 ? FLUSH_MS : FLUSH_FLOOD_MS;
    if (this.#timer === undefined) {
      this.#timer = setTimeout(() => this.flush(), wait);
      this.#dueMs = performance.now() + wait;
    } else if (performance.now() > this.#dueMs) this.flush(); // a busy program keeps timers waiting
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const stream of ["stdout", "stderr"] as const) {
      const printed = this.#streams[stream];
      const { head, tail, dropped } = printed;
      if (head !== "") this.#emit({ stream, dropped: 0, text: head });
      if (tail !== "") this.#emit({ stream, dropped, text: tail });
      Object.assign(printed, { head: "", tail: "", dropped: 0 });
    }
  }
}
