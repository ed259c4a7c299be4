/**
 * Keeps the head and the tail of a stream within a bound of bytes, and passes on what comes first as it comes.
 * Text is cut between characters, never inside one.
 */
export class CappedOutput {
  readonly #limit: number;
  readonly #onText: (text: string) => void;
  #first: Buffer[] = [];
  #firstBytes = 0;
  #rest: Buffer[] = [];
  #restBytes = 0;
  #totalBytes = 0;

  /** `onText` sees at most `limitBytes`. */
  constructor(limitBytes: number, onText: (text: string) => void) {
    this.#limit = limitBytes;
    this.#onText = onText;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }

  get truncated(): boolean {
    return this.#totalBytes > this.#limit;
  }

  /** `bytes` must hold whole characters. */
  write(bytes: Buffer): void {
    this.#totalBytes += bytes.length;
    const room = this.#limit - this.#firstBytes;
    const cut = this.#restBytes > 0 ? 0 : startOfCharacter(bytes, Math.min(room, bytes.length));
    if (cut > 0) {
      const head = bytes.subarray(0, cut);
      this.#first.push(head);
      this.#firstBytes += cut;
      this.#onText(head.toString("utf8"));
    }
    if (cut < bytes.length) this.#keepRest(bytes.subarray(cut));
  }

  /** Counts bytes that never came; only once the limit is reached. */
  skip(bytes: number): void {
    this.#totalBytes += bytes;
  }

  /** All of it, or its head, a line that says how much is missing, and its tail. */
  text(): string {
    const first = Buffer.concat(this.#first);
    if (!this.truncated) return first.toString("utf8");
    const all = Buffer.concat([first, ...this.#rest]);
    const half = this.#limit >> 1;
    const head = first.subarray(0, startOfCharacter(first, half)).toString("utf8");
    const tail = all.subarray(endOfCharacter(all, all.length - half)).toString("utf8");
    return `${head}\n[... ${this.#totalBytes - 2 * half} bytes cut ...]\n${tail}`;
  }

  #keepRest(bytes: Buffer): void {
    this.#rest.push(bytes);
    this.#restBytes += bytes.length;
    if (this.#restBytes <= 2 * this.#limit + 4096) return;
    const all = Buffer.concat(this.#rest);
    this.#rest = [all.subarray(all.length - this.#limit)];
    this.#restBytes = this.#limit;
  }
}

/** The largest cut at or before `at` that splits no character. */
export function startOfCharacter(bytes: Uint8Array, at: number): number {
  while (at > 0 && at < bytes.length && ((bytes[at] ?? 0) & 0xc0) === 0x80) at--;
  return at;
}

/** The smallest cut at or after `at` that splits no character. */
function endOfCharacter(bytes: Uint8Array, at: number): number {
  while (at < bytes.length && ((bytes[at] ?? 0) & 0xc0) === 0x80) at++;
  return at;
}
