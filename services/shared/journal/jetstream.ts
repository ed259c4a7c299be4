import {
  type ConsumerMessages,
  DeliverPolicy,
  DiscardPolicy,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "@nats-io/jetstream";
import { type NatsConnection, headers as newHeaders } from "@nats-io/transport-node";
import { chainRecords, checkAppend, HASH_BYTES, headOf, sameHead } from "./chain.ts";
import { fromBatch, messageSeqOf, toBatch } from "./jetstream-wire.ts";
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

const STREAM = "INTERLOCK";
const STATE_STREAM = "INTERLOCK_STATE";
const SUBJECT = "interlock.journal.";
const STATE_SUBJECT = "interlock.state.";

/** An append or a look-up that takes longer has failed: the caller decides again. */
const TIMEOUT_MS = 3_000;
const WRONG_LAST_SEQUENCE = 10071;
const NO_MESSAGE = 10037;
const MAX_TAILS = 20_000;
/** How soon a broken watch is noticed. */
const HEARTBEAT_MS = 1_000;

/** @throws Error when NATS has no JetStream, or has a stream of our name that is another's. */
export async function openJetstreamJournal(options: JetstreamOptions): Promise<Journal> {
  const { connection, replicas } = options;
  const manager = await jetstreamManager(connection, { timeout: TIMEOUT_MS });
  const common = {
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    num_replicas: replicas,
    allow_direct: false,
  };
  // Nobody removes or replaces a record through the API; a full store refuses rather than forgets.
  const evidence = { deny_delete: true, deny_purge: true, discard: DiscardPolicy.New };
  await ensureStream(manager, { ...common, ...evidence, name: STREAM, subjects: [`${SUBJECT}>`] });
  await ensureStream(manager, {
    ...common,
    name: STATE_STREAM,
    subjects: [`${STATE_SUBJECT}>`],
    max_msgs_per_subject: 1,
  });
  return new JetstreamJournal(connection, manager, jetstream(connection, { timeout: TIMEOUT_MS }));
}

/** The last message of a stream's subject. */
type Tail = { readonly head: Head; readonly messageSeq: number };

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
    const most = this.#connection.info?.max_payload ?? 1 << 20;
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
    if (last === undefined) return;
    const lastSeq = last.at(-1)?.seq ?? 0;
    if (lastSeq <= afterSeq) return;
    const known = this.#tails.get(stream);
    if ((last[0]?.seq ?? 0) <= afterSeq + 1) yield* after(last, afterSeq, signal);
    else {
      const from = known !== undefined && known.head.seq <= afterSeq ? known.messageSeq + 1 : 1;
      yield* this.#range(stream, from, afterSeq, lastSeq, signal);
    }
    const tail = last.at(-1);
    if (tail !== undefined) this.#remember(stream, { head: tail, messageSeq: messageSeqOf(tail.position) });
  }

  async *watch(prefix: string, afterPosition: number, signal: AbortSignal): AsyncGenerator<Recorded> {
    let position = afterPosition;
    const stop = AbortSignal.any([signal, this.#close.signal]);
    const filter = prefix.endsWith(".") ? `${SUBJECT}${prefix}>` : `${SUBJECT}>`;
    while (!stop.aborted) {
      // The message of the last record seen once more: the rest of its records may be missing.
      const from = Math.max(1, messageSeqOf(position));
      try {
        for await (const record of this.#consume(filter, from, stop)) {
          if (record.position <= position || !record.stream.startsWith(prefix)) continue;
          position = record.position;
          yield record;
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
    const found = await this.#message(STATE_STREAM, `${STATE_SUBJECT}snapshot.${stream}`);
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
    const found = await this.#message(STATE_STREAM, `${STATE_SUBJECT}cursor.${name}`);
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
    const last = (await this.#lastMessage(stream))?.at(-1);
    const tail =
      last === undefined ? { head: GENESIS, messageSeq: 0 } : { head: last, messageSeq: messageSeqOf(last.position) };
    this.#remember(stream, tail);
    return tail;
  }

  async #lastMessage(stream: string): Promise<Recorded[] | undefined> {
    const found = await this.#message(STREAM, SUBJECT + stream);
    return found === undefined ? undefined : fromBatch(stream, found.seq, found.data);
  }

  async #message(stream: string, subject: string): Promise<{ seq: number; data: Uint8Array } | undefined> {
    return await this.#ask(async () => {
      try {
        return (await this.#manager.streams.getMessage(stream, { last_by_subj: subject })) ?? undefined;
      } catch (error) {
        if (codeOf(error) === NO_MESSAGE) return undefined;
        throw error;
      }
    });
  }

  /** From one message on to the record that is the stream's last. */
  async *#range(
    stream: string,
    from: number,
    afterSeq: number,
    lastSeq: number,
    signal?: AbortSignal,
  ): AsyncGenerator<Recorded> {
    const stop = new AbortController();
    const ends = [stop.signal, this.#close.signal, ...(signal === undefined ? [] : [signal])];
    try {
      for await (const record of this.#consume(SUBJECT + stream, from, AbortSignal.any(ends))) {
        if (record.seq > afterSeq) yield record;
        if (record.seq >= lastSeq) return;
      }
      signal?.throwIfAborted();
      throw new JournalUnavailable(`${stream} could not be read to its end`);
    } finally {
      stop.abort();
    }
  }

  /** Records as JetStream delivers them, in order and without a gap, until the signal aborts. */
  async *#consume(filter: string, from: number, stop: AbortSignal): AsyncGenerator<Recorded> {
    let messages: ConsumerMessages | undefined;
    const end = (): void => messages?.stop();
    stop.addEventListener("abort", end);
    try {
      messages = await this.#ask(async () => {
        const consumer = await this.#client.consumers.get(STREAM, {
          filter_subjects: filter,
          deliver_policy: DeliverPolicy.StartSequence,
          opt_start_seq: from,
          inactive_threshold: 10_000,
        });
        return await consumer.consume({ max_messages: 500, expires: 5_000, idle_heartbeat: HEARTBEAT_MS });
      });
      if (stop.aborted) return;
      for await (const message of messages) {
        if (stop.aborted) return;
        yield* fromBatch(message.subject.slice(SUBJECT.length), message.seq, message.data);
        if (stop.aborted) return;
      }
    } finally {
      stop.removeEventListener("abort", end);
      messages?.stop();
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

function* after(records: readonly Recorded[], seq: number, signal: AbortSignal | undefined): Generator<Recorded> {
  for (const record of records) {
    signal?.throwIfAborted();
    if (record.seq > seq) yield record;
  }
}

type Wanted = Partial<StreamConfig> & { readonly name: string; readonly subjects: string[] };

/** Two that open at once both succeed: the same configuration twice is no error to JetStream. */
async function ensureStream(manager: JetStreamManager, wanted: Wanted): Promise<void> {
  let found: StreamConfig;
  try {
    found = (await manager.streams.add(wanted)).config;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    try {
      found = (await manager.streams.info(wanted.name)).config;
    } catch {
      throw new Error(
        `NATS has no JetStream that can be used here: ${why}. Start nats-server with jetstream enabled.`,
        { cause: error },
      );
    }
  }
  for (const [key, value] of Object.entries(wanted)) {
    const there = found[key as keyof StreamConfig];
    if (JSON.stringify(there) === JSON.stringify(value)) continue;
    throw new Error(
      `the JetStream stream ${wanted.name} has ${key} ${JSON.stringify(there)}, not ${JSON.stringify(value)}: it was made by somebody else, or for another number of replicas. Rename or edit it.`,
    );
  }
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
