import { GENESIS, type Head, type Journal, type Recorded } from "../../services/shared/journal/journal.ts";

/** Short words for what journal tests write, read and compare. */

export async function take(
  journal: Journal,
  prefix: string,
  afterPosition: number,
  count: number,
  stop: AbortController,
): Promise<Recorded[]> {
  const own = new AbortController();
  const seen: Recorded[] = [];
  for await (const one of journal.watch(prefix, afterPosition, AbortSignal.any([own.signal, stop.signal]))) {
    seen.push(one);
    if (seen.length === count) own.abort();
  }
  return seen;
}

export function read(journal: Journal, stream: string, afterSeq = 0): Promise<Recorded[]> {
  return collect(journal.read(stream, afterSeq));
}

export function names(journal: Journal, prefix: string): Promise<string[]> {
  return collect(journal.streams(prefix));
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  return await Array.fromAsync(items);
}

export function record(body: string): { timeMs: number; body: Uint8Array } {
  return { timeMs: 1_700_000_000_000, body: new TextEncoder().encode(body) };
}

export function headOf(records: readonly Recorded[]): Head {
  return records.at(-1) ?? GENESIS;
}

export function headAt(records: readonly Recorded[], seq: number): { seq: number; hash: string } {
  const found = records.find((one) => one.seq === seq);
  return plain(found ?? GENESIS);
}

export function plain({ seq, hash }: Head): { seq: number; hash: string } {
  return { seq, hash: hex(hash) };
}

export function chained(one: Pick<Recorded, "seq" | "timeMs" | "body" | "prevHash" | "hash">) {
  const { seq, timeMs, body, prevHash, hash } = one;
  return { seq, timeMs, body: hex(body), prevHash: hex(prevHash), hash: hex(hash) };
}

export function comparable(one: Recorded) {
  return { ...chained(one), stream: one.stream, position: one.position };
}

export function texts(records: readonly Recorded[]): string[] {
  return records.map(({ body }) => text(body));
}

export function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** The journal as it would be with one stream cut off before `seq`. */
export function without(journal: Journal, stream: string, seq: number): Journal {
  async function* cut(name: string, afterSeq: number): AsyncIterable<Recorded> {
    for await (const one of journal.read(name, afterSeq)) if (name !== stream || one.seq < seq) yield one;
  }
  return new Proxy(journal, {
    get: (target, key) => (key === "read" ? cut : Reflect.get(target, key).bind(target)),
  });
}
