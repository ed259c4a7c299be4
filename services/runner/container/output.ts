import { StringDecoder } from "node:string_decoder";
import type { OutputStream, RunIo } from "../backend.ts";
import { CappedOutput } from "../output.ts";
import { FrameParser } from "./frames.ts";

/** What a container wrote: both streams apart, as text, each within its bound. */
export class ContainerOutput {
  readonly #stdout: TextOutput;
  readonly #stderr: TextOutput;
  readonly #frames: FrameParser;

  constructor(limitBytes: number, onOutput: RunIo["onOutput"]) {
    this.#stdout = new TextOutput(limitBytes, (text) => onOutput("stdout", text));
    this.#stderr = new TextOutput(limitBytes, (text) => onOutput("stderr", text));
    this.#frames = new FrameParser((stream, bytes) => this.#of(stream).write(bytes));
  }

  /** Takes the engine's frames. @throws Error when they are none. */
  write(chunk: Buffer): void {
    this.#frames.write(chunk);
  }

  /** When no more will come. */
  end(): { stdout: string; stderr: string; truncated: boolean; outputBytes: number } {
    const [stdout, stderr] = [this.#stdout.end(), this.#stderr.end()];
    return {
      stdout: stdout.text(),
      stderr: stderr.text(),
      truncated: stdout.truncated || stderr.truncated,
      outputBytes: stdout.totalBytes + stderr.totalBytes,
    };
  }

  #of(stream: OutputStream): TextOutput {
    return stream === "stdout" ? this.#stdout : this.#stderr;
  }
}

/** Makes whole, valid characters of bytes that come cut anywhere and may be none. */
class TextOutput {
  readonly #decoder = new StringDecoder("utf8");
  readonly #output: CappedOutput;

  constructor(limitBytes: number, onText: (text: string) => void) {
    this.#output = new CappedOutput(limitBytes, onText);
  }

  write(bytes: Buffer): void {
    this.#put(this.#decoder.write(bytes));
  }

  end(): CappedOutput {
    this.#put(this.#decoder.end());
    return this.#output;
  }

  #put(text: string): void {
    if (text !== "") this.#output.write(Buffer.from(text));
  }
}
