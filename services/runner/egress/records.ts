import { randomUUID } from "node:crypto";
import type { EgressRefusal } from "./refusal.ts";

/** What a sandbox asked of the world, and what came of it. Never a query, a header or a body. */
export type EgressRecord = {
  readonly id: string;
  readonly atMs: number;
  readonly kind: "connect" | "http";
  readonly host: string;
  readonly port: number;
  readonly method: string;
  readonly path: string;
  /** The rule that allowed it; empty where none did. */
  readonly rule: string;
  /** Why not; empty where it went through. */
  readonly refused: string;
  /** The answer's; 0 where there was none. */
  readonly status: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly ms: number;
};

type Subject = Pick<EgressRecord, "kind" | "host" | "port" | "method" | "path">;
const MAX_RECORDS = 100;
const MAX_TEXT = 300;

export class EgressRecords {
  readonly #entries: Entry[] = [];
  #left = 0;

  /** The first hundred are kept, of the others the number. */
  add(subject: Subject, nowMs: number): Entry {
    const entry = new Entry(subject, nowMs);
    if (this.#entries.length < MAX_RECORDS) this.#entries.push(entry);
    else this.#left++;
    return entry;
  }

  list(): { readonly records: readonly EgressRecord[]; readonly left: number } {
    return { records: this.#entries.map((entry) => entry.record()), left: this.#left };
  }
}

/** One request, as it goes on. */
export class Entry {
  readonly id = randomUUID();
  readonly #atMs: number;
  #subject: Subject;
  #rule = "";
  #refused = "";
  #status = 0;
  #sent = 0;
  #received = 0;
  #ms = 0;

  constructor(subject: Subject, nowMs: number) {
    this.#subject = subject;
    this.#atMs = nowMs;
  }

  to(host: string, port: number, path: string): void {
    this.#subject = { ...this.#subject, host, port, path };
  }

  by(rule: string): void {
    this.#rule = rule;
  }

  refused({ reason }: EgressRefusal): void {
    this.#refused = reason;
  }

  answered(status: number): void {
    this.#status = status;
  }

  readonly sent = (bytes: number): void => {
    this.#sent += bytes;
  };

  readonly received = (bytes: number): void => {
    this.#received += bytes;
  };

  end(nowMs: number): void {
    this.#ms = nowMs - this.#atMs;
  }

  record(): EgressRecord {
    const { kind, host, port, method, path } = this.#subject;
    return {
      ...{
        id: this.id,
        atMs: this.#atMs,
        kind,
        host,
        port,
        method: method.slice(0, 32),
        path: path.slice(0, MAX_TEXT),
      },
      ...{ rule: this.#rule, refused: this.#refused, status: this.#status, ms: this.#ms },
      ...{ bytesSent: this.#sent, bytesReceived: this.#received },
    };
  }
}
