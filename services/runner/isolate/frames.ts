/**
 * Messages on a pipe: four bytes of length, then that much JSON. Shared by the runner and its worker processes, so it
 * imports nothing.
 */
export function toFrame(message: unknown): Uint8Array {
  const body = Buffer.from(JSON.stringify(message));
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length, 0);
  frame.set(body, 4);
  return frame;
}

/** Cuts a byte stream into messages. The other side may be hostile: a frame above `maxBytes` is never gathered. */
export class FrameReader {
  readonly #maxBytes: number;
  #parts: Uint8Array[] = [];
  #bytes = 0;
  #wanted = 4;
  #inBody = false;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** @throws Error when what came is no frame; nothing after that can be read. */
  push(chunk: Uint8Array): unknown[] {
    this.#parts.push(chunk);
    this.#bytes += chunk.length;
    const messages: unknown[] = [];
    while (this.#bytes >= this.#wanted) {
      const part = this.#take(this.#wanted);
      if (this.#inBody) messages.push(JSON.parse(part.toString("utf8")));
      else if (part.readUInt32BE(0) > this.#maxBytes) throw new Error(`a frame of ${part.readUInt32BE(0)} bytes`);
      this.#wanted = this.#inBody ? 4 : part.readUInt32BE(0);
      this.#inBody = !this.#inBody;
    }
    return messages;
  }

  #take(count: number): Buffer {
    const [first] = this.#parts;
    const all =
      this.#parts.length === 1 && first !== undefined
        ? Buffer.from(first.buffer, first.byteOffset, first.byteLength)
        : Buffer.concat(this.#parts);
    this.#bytes -= count;
    this.#parts = this.#bytes > 0 ? [all.subarray(count)] : [];
    return all.subarray(0, count);
  }
}
