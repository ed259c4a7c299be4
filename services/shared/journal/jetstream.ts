import {
  type Consumer,
  type ConsumerMessages,
  DeliverPolicy,
  type JetStreamClient,
  type JetStreamManager,
  type JsMsg,
  jetstream,
  jetstreamManager,
  type MsgRequest,
} from "@nats-io/jetstream";
import { type NatsConnection, headers as newHeaders } from "@nats-io/transport-node";
import { chainRecords, checkAppend, HASH_BYTES, headOf, sameHead } from "./chain.ts";
import { ensureStreams, STATE_STREAM, STATE_SUBJECT, STREAM, SUBJECT } from "./jetstream-streams.ts";
import { after, fromBatch, messageSeqOf, reachesBack, readable, toBatch } from "./jetstream-wire.ts";
import {
  Conflict,
  type Cursor,
  GENESIS,
  type Head,
  type Journal,
  JournalUnavailable,
  type NewRecord,
  type Recorded,
  type Snapshot,
} from "./journal.ts";

/**
 * The journal on NATS JetStream: one message is one append, and the server's own check of the subject's last sequence
 * is the optimistic lock. Correct with any number of writers.
 *
 * Durable (J1) means: stored by a majority of the replicas, in their files but not yet fsynced; the server does that
 * every `sync_interval` (two minutes by default). With one replica a power cut, unlike a crash of the process, may take
 * back what was acknowledged since; with three it takes a power cut of two at once.
 *
 * No Nats-Msg-Id is sent: an append is never sent twice here, and two writers' equal appends must not pass for one.
 */
export type JetstreamOptions = {
  /** Owned from here on: closed with the journal. */
  readonly connection: NatsConnection;
  readonly replicas: 1 | 3 | 5;
};

/** An append or a look-up that takes longer has failed: the caller decides again. */
const TIMEOUT_MS = 3_000;
const WRONG_LAST_SEQUENCE = 10071;
const NO_MESSAGE = 10037;
const MAX_TAILS = 20_000;
/** Of an append's message, besides its records. */
const HEADER_ROOM = 256;
/** How soon a broken watch is noticed. */
const HEARTBEAT_MS = 1_000;

/** @throws Error when NATS has no JetStream, or has a stream of our name that is another's. */
export async function openJetstreamJournal(options: JetstreamOptions): Promise<Journal> {
  const { connection, replicas } = options;
  const manager = await jetstreamManager(connection, { timeout: TIMEOUT_MS });
  await ensureStreams(manager, replicas);
  return new JetstreamJournal(connection, manager, jetstream(connection, { timeout: TIMEOUT_MS }));
}

/** The last message of a stream's subject. */
type Tail = { readonly head: Head; readonly messageSeq: number };
const NO_TAIL: Tail = { head: GENESIS, messageSeq: 0 };

type Last =
  | { readonly kind: "none" }
  | { readonly kind: "unreadable" }
  | { readonly kind: "found"; readonly seq: number; readonly data: Uint8Array };

/** Messages of one stream, from one to another. */
type Range = { readonly stream: string; readonly from: number; readonly to: number };

class JetstreamJournal implements Journal {
  readonly #connection: NatsConnection;
  readonly #manager: JetStreamManager;
  readonly #client: JetStreamClient;
  /** Perhaps out of date: the server has the last word on every append. */
  readonly #tails = new Map<string, Tail>();
  readonly #close = new AbortController();
  #connected = true;

  constructor(connection: NatsConnection, manager: JetStreamManager, client: JetStreamClient) {
    this.#connection = connection;
    this.#manager = manager;
    this.#client = client;
    void this.#followStatus();
  }

  async append(stream: string, head: Head, records: readonly NewRecord[]): Promise<Head> {
    checkAppend(stream, records);
    const chained = chainRecords(stream, head, records);
    const batch = toBatch(chained);
    const most = (this.#connection.info?.max_payload ?? 1 << 20) - HEADER_ROOM;
    if (batch.length > most)
      throw new TypeError(`journal: an append of ${batch.length} bytes; NATS here carries ${most}`);
    const known = this.#tails.get(stream);
    const tail = known !== undefined && sameHead(known.head, head) ? known : await this.#lookUp(stream);
    if (!sameHead(tail.head, head)) throw new Conflict(`${stream} is at #${tail.head.seq}, not at #${head.seq}`);
    const messageSeq = await this.#publish(stream, batch, tail.messageSeq);
    const moved = headOf(head, chained);
    this.#remember(stream, { head: moved, messageSeq });
    return moved;
  }

  async *read(stream: string, afterSeq: number, signal?: AbortSignal): AsyncGenerator<Recorded> {
    signal?.throwIfAborted();
    const last = await this.#lastMessage(stream);
    const known = this.#tails.get(stream);
    switch (last.kind) {
      case "none":
        this.#remember(stream, NO_TAIL);
        return;
      case "unreadable":
        yield* this.#salvage(stream, afterSeq);
        return;
      case "found": {
        const records = readable(stream, last);
        if (records !== undefined && reachesBack(records, afterSeq)) yield* after(records, afterSeq, signal);
        else {
          const from = known !== undefined && known.head.seq <= afterSeq ? known.messageSeq + 1 : 1;
          yield* this.#range({ stream, from, to: last.seq }, afterSeq, signal);
        }
        const head = records?.at(-1);
        if (head !== undefined) this.#remember(stream, { head, messageSeq: last.seq });
      }
    }
  }

  async *watch(prefix: string, afterPosition: number, signal: AbortSignal): AsyncGenerator<Recorded> {
    let position = afterPosition;
    const stop = AbortSignal.any([signal, this.#close.signal]);
    const filter = prefix.endsWith(".") ? `${SUBJECT}${prefix}>` : `${SUBJECT}>`;
    while (!stop.aborted) {
      // The message of the last record seen once more: the rest of its records may be missing.
      const from = Math.max(1, messageSeqOf(position));
      try {
        for await (const message of this.#consume(filter, from, stop)) {
          const stream = message.subject.slice(SUBJECT.length);
          if (!stream.startsWith(prefix)) continue;
          for (const record of fromBatch(stream, message.seq, message.data)) {
            if (record.position <= position) continue;
            position = record.position;
            yield record;
            if (stop.aborted) break;
          }
        }
      } catch (error) {
        if (stop.aborted) break;
        if (!(error instanceof JournalUnavailable)) throw error;
        await pause(250, stop);
      }
    }
    if (!signal.aborted) throw new JournalUnavailable("the journal is closed");
  }

  async *streams(prefix: string): AsyncGenerator<string> {
    const { state } = await this.#ask(() => this.#manager.streams.info(STREAM, { subjects_filter: `${SUBJECT}>` }));
    const names = Object.keys(state.subjects ?? {}).map((subject) => subject.slice(SUBJECT.length));
    yield* names.filter((name) => name.startsWith(prefix)).sort((a, b) => (a < b ? -1 : 1));
  }

  async readSnapshot(stream: string): Promise<Snapshot | undefined> {
    const found = await this.#message(STATE_STREAM, { last_by_subj: `${STATE_SUBJECT}snapshot.${stream}` });
    if (found === undefined) return undefined;
    const bytes = Buffer.from(found.data);
    const seq = Number(bytes.readBigUInt64BE(0));
    return { seq, hash: bytes.subarray(8, 8 + HASH_BYTES), state: bytes.subarray(8 + HASH_BYTES) };
  }

  async writeSnapshot(stream: string, { seq, hash, state }: Snapshot): Promise<void> {
    const head = Buffer.alloc(8);
    head.writeBigUInt64BE(BigInt(seq));
    await this.#publishState(`snapshot.${stream}`, Buffer.concat([head, hash, state]));
  }

  async readCursor(name: string): Promise<Cursor | undefined> {
    const found = await this.#message(STATE_STREAM, { last_by_subj: `${STATE_SUBJECT}cursor.${name}` });
    if (found === undefined) return undefined;
    const bytes = Buffer.from(found.data);
    return { position: Number(bytes.readBigUInt64BE(0)), state: bytes.subarray(8) };
  }

  async writeCursor(name: string, { position, state }: Cursor): Promise<void> {
    const head = Buffer.alloc(8);
    head.writeBigUInt64BE(BigInt(position));
    await this.#publishState(`cursor.${name}`, Buffer.concat([head, state]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close.abort();
    await this.#connection.close();
  }

  /** @throws Conflict or JournalUnavailable */
  async #publish(stream: string, batch: Uint8Array, lastMessageSeq: number): Promise<number> {
    const headers = newHeaders();
    headers.set("Nats-Expected-Last-Subject-Sequence", String(lastMessageSeq));
    const answer = await this.#ask(() =>
      this.#connection.request(SUBJECT + stream, batch, { headers, timeout: TIMEOUT_MS }),
    );
    const ack = answer.json<{ seq?: number; error?: { err_code?: number; description?: string } }>();
    if (ack.error === undefined && ack.seq !== undefined) return ack.seq;
    this.#tails.delete(stream);
    if (ack.error?.err_code === WRONG_LAST_SEQUENCE) throw new Conflict(`${stream} has moved on`);
    throw new JournalUnavailable(
      `JetStream does not take ${stream}: ${ack.error?.description ?? "it answered without a sequence"}`,
    );
  }

  async #publishState(name: string, bytes: Uint8Array): Promise<void> {
    await this.#ask(() => this.#client.publish(STATE_SUBJECT + name, bytes));
  }

  async #lookUp(stream: string): Promise<Tail> {
    const last = await this.#lastMessage(stream);
    if (last.kind === "unreadable") throw unreadable(stream);
    const head = last.kind === "none" ? undefined : [...fromBatch(stream, last.seq, last.data)].at(-1);
    const tail = head === undefined || last.kind === "none" ? NO_TAIL : { head, messageSeq: last.seq };
    this.#remember(stream, tail);
    return tail;
  }

  /** NATS also says that there is none when it cannot read it: no stream may begin anew for that. */
  async #lastMessage(stream: string): Promise<Last> {
    const subject = SUBJECT + stream;
    const last = async (): Promise<Last | undefined> => {
      const found = await this.#message(STREAM, { last_by_subj: subject });
      return found === undefined ? undefined : { kind: "found", seq: found.seq, data: found.data };
    };
    const found = await last();
    if (found !== undefined) return found;
    const { state } = await this.#ask(() => this.#manager.streams.info(STREAM, { subjects_filter: subject }));
    if (state.subjects?.[subject] === undefined) return { kind: "none" };
    return (await last()) ?? { kind: "unreadable" }; // or another has begun it meanwhile
  }

  /** What can still be read of a stream whose last message cannot. @throws Error at the first that is not there. */
  async *#salvage(stream: string, afterSeq: number): AsyncGenerator<Recorded> {
    for (let from = 1; ; ) {
      const next = { seq: from, next_by_subj: SUBJECT + stream };
      const found = await this.#message(STREAM, next);
      if (found === undefined) throw unreadable(stream);
      yield* after(fromBatch(stream, found.seq, found.data), afterSeq, undefined);
      from = found.seq + 1;
    }
  }

  async #message(stream: string, query: MsgRequest): Promise<{ seq: number; data: Uint8Array } | undefined> {
    return await this.#ask(async () => {
      try {
        return (await this.#manager.streams.getMessage(stream, query)) ?? undefined;
      } catch (error) {
        if (codeOf(error) === NO_MESSAGE) return undefined;
        throw error;
      }
    });
  }

  /** All records of these messages. Where the stream ends is NATS's to say, not that of a record that was changed. */
  async *#range({ stream, from, to }: Range, afterSeq: number, signal?: AbortSignal): AsyncGenerator<Recorded> {
    const stop = new AbortController();
    const ends = [stop.signal, this.#close.signal, ...(signal === undefined ? [] : [signal])];
    const wait = (): NodeJS.Timeout => setTimeout(() => stop.abort(), TIMEOUT_MS);
    let waiting = wait();
    try {
      for await (const message of this.#consume(SUBJECT + stream, from, AbortSignal.any(ends))) {
        clearTimeout(waiting);
        yield* after(fromBatch(stream, message.seq, message.data), afterSeq, signal);
        if (message.seq >= to) return;
        waiting = wait();
      }
      signal?.throwIfAborted();
      throw new JournalUnavailable(`${stream} could not be read to its end`);
    } finally {
      clearTimeout(waiting);
      stop.abort();
    }
  }

  /** Messages as JetStream delivers them, in order and without a gap, until the signal aborts. */
  async *#consume(filter: string, from: number, stop: AbortSignal): AsyncGenerator<JsMsg> {
    let consumer: Consumer | undefined;
    let messages: ConsumerMessages | undefined;
    const end = (): void => messages?.stop();
    stop.addEventListener("abort", end);
    try {
      messages = await this.#ask(async () => {
        consumer = await this.#client.consumers.get(STREAM, {
          filter_subjects: filter,
          deliver_policy: DeliverPolicy.StartSequence,
          opt_start_seq: from,
          inactive_threshold: 10_000,
        });
        return await consumer.consume({ max_messages: 500, expires: 5_000, idle_heartbeat: HEARTBEAT_MS });
      });
      if (stop.aborted) return;
      for await (const message of delivered(messages)) {
        if (stop.aborted) return;
        yield message;
        if (stop.aborted) return;
      }
    } finally {
      stop.removeEventListener("abort", end);
      messages?.stop();
      consumer?.delete().catch(() => {}); // what cannot be told goes by itself after its threshold
    }
  }

  #remember(stream: string, tail: Tail): void {
    this.#tails.delete(stream);
    this.#tails.set(stream, tail);
    const [oldest] = this.#tails.keys();
    if (this.#tails.size > MAX_TAILS && oldest !== undefined) this.#tails.delete(oldest);
  }

  async #ask<T>(question: () => Promise<T>): Promise<T> {
    if (!this.#connected) throw new JournalUnavailable("NATS does not answer");
    try {
      return await question();
    } catch (error) {
      if (error instanceof Conflict || error instanceof JournalUnavailable) throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new JournalUnavailable(`JetStream does not answer: ${why}`, { cause: error });
    }
  }

  async #followStatus(): Promise<void> {
    for await (const { type } of this.#connection.status()) {
      if (type === "disconnect") this.#connected = false;
      else if (type === "reconnect") this.#connected = true;
    }
    this.#connected = false;
  }
}

async function* delivered(messages: ConsumerMessages): AsyncGenerator<JsMsg> {
  try {
    yield* messages;
  } catch (cause) {
    throw new JournalUnavailable("JetStream has stopped delivering", { cause });
  }
}

function unreadable(stream: string): Error {
  return new Error(`journal: NATS has a message of ${stream} that it cannot read; run interlock audit verify`);
}

function codeOf(error: unknown): number | undefined {
  return typeof error === "object" && error !== null && "code" in error ? Number(error.code) : undefined;
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
