import type { OutputStream } from "../backend.ts";

const HEADER_BYTES = 8;

/**
 * Takes apart what an engine sends of a container without a terminal: frames of one byte for the stream, three of
 * padding and four for the length. Payloads are passed on in the pieces they come in: a frame may announce 4 GiB.
 */
export class FrameParser {
  readonly #onBytes: (stream: OutputStream, bytes: Buffer) => void;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #stream: OutputStream = "stdout";
  #left = 0;

  constructor(onBytes: (stream: OutputStream, bytes: Buffer) => void) {
    this.#onBytes = onBytes;
  }

  /** @throws Error when this is no such stream. */
  write(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const end = Math.min(chunk.length, at + this.#left);
        this.#onBytes(this.#stream, chunk.subarray(at, end));
        this.#left -= end - at;
        at = end;
      } else {
        const copied = chunk.copy(this.#header, this.#headerBytes, at, at + HEADER_BYTES - this.#headerBytes);
        at += copied;
        this.#headerBytes += copied;
        if (this.#headerBytes === HEADER_BYTES) this.#open();
      }
    }
  }

  #open(): void {
    this.#stream = streamOf(this.#header[0]);
    this.#left = this.#header.readUInt32BE(4);
    this.#headerBytes = 0;
  }
}

function streamOf(number: number | undefined): OutputStream {
  if (number === 1) return "stdout";
  if (number === 2) return "stderr";
  throw new Error(`an engine's frame names stream ${number}`);
}
