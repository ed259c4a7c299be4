import { Transform } from "node:stream";
import { EgressRefusal } from "./refusal.ts";

/** What one sandbox may move through the proxy, all connections and both ways together. */
export class ByteAllowance {
  readonly #most: number;
  #used = 0;

  constructor(mostBytes: number) {
    this.#most = mostBytes;
  }

  get used(): number {
    return Math.min(this.#used, this.#most);
  }

  /** A part of a pipeline that fails once nothing is left: not one byte more goes through. */
  through(onBytes: (bytes: number) => void): Transform {
    return new Transform({
      transform: (chunk: Buffer, _, done) => {
        this.#used += chunk.length;
        if (this.#used > this.#most) {
          done(
            new EgressRefusal("BYTES_EXCEEDED", `The call has used the ${this.#most} bytes of egress it is allowed.`),
          );
          return;
        }
        onBytes(chunk.length);
        done(null, chunk);
      },
    });
  }
}
