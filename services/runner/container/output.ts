import { StringDecoder } from "node:string_decoder";
import type { Masker } from "../../shared/mask.ts";
import type { OutputStream, RunIo } from "../backend.ts";
import { CappedOutput } from "../output.ts";

/** What a program wrote: both streams apart, as text, each within its bound and without the secrets it was given. */
export class ContainerOutput {
  readonly #stdout: TextOutput;
  readonly #stderr: TextOutput;

  constructor(limitBytes: number, newMasker: () => Masker, onOutput: RunIo["onOutput"]) {
    this.#stdout = new TextOutput(limitBytes, newMasker(), (text) => onOutput("stdout", text));
    this.#stderr = new TextOutput(limitBytes, newMasker(), (text) => onOutput("stderr", text));
  }

  write(stream: OutputStream, bytes: Buffer): void {
    (stream === "stdout" ? this.#stdout : this.#stderr).write(bytes);
  }

  /** When no more will come. */
  end(): { stdout: string; stderr: string; truncated: boolean; outputBytes: number } {
    const [stdout, stderr] = [this.#stdout.end(), this.#stderr.end()];
    return {
      stdout: stdout.output.text(),
      stderr: stderr.output.text(),
      truncated: stdout.output.truncated || stderr.output.truncated,
      outputBytes: stdout.bytes + stderr.bytes,
    };
  }
}

/** Makes whole, valid characters of bytes that come cut anywhere and may be none; masks before it cuts. */
class TextOutput {
  readonly #decoder = new StringDecoder("utf8");
  readonly #masker: Masker;
  readonly #output: CappedOutput;
  #bytes = 0;

  constructor(limitBytes: number, masker: Masker, onText: (text: string) => void) {
    this.#masker = masker;
    this.#output = new CappedOutput(limitBytes, onText);
  }

  write(bytes: Buffer): void {
    this.#bytes += bytes.length;
    this.#put(this.#masker.write(this.#decoder.write(bytes)));
  }

  end(): { readonly output: CappedOutput; readonly bytes: number } {
    this.#put(this.#masker.write(this.#decoder.end()) + this.#masker.end());
    return { output: this.#output, bytes: this.#bytes };
  }

  #put(text: string): void {
    if (text !== "") this.#output.write(Buffer.from(text));
  }
}
