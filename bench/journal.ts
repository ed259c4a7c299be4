import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { connect } from "@nats-io/transport-node";
import { openJetstreamJournal } from "../services/shared/journal/jetstream.ts";
import { GENESIS, type Head, type Journal } from "../services/shared/journal/journal.ts";
import { openSqliteJournal } from "../services/shared/journal/sqlite.ts";
import { startNats } from "../test/support/nats.ts";
import { measure } from "./load.ts";
import { type Row, ratioRow, type Suite } from "./rows.ts";

/** What an append costs: beside bare commits of the same bytes, and bare request-reply to the same NATS server. */
export const runJournalSuite: Suite = async ({ full, say }) => {
  const durationMs = full ? 4000 : 1000;
  return [...(await sqlite(durationMs, say)), ...(await jetstream(durationMs, say))];
};

const BODY = Buffer.from(JSON.stringify({ kind: "added", text: "x".repeat(380) }));

async function sqlite(durationMs: number, say: (line: string) => void): Promise<Row[]> {
  const folder = mkdtempSync(join(tmpdir(), "interlock-bench-"));
  try {
    const bare = bareSqlite(join(folder, "bare.db"));
    await using journal = openSqliteJournal({ path: join(folder, "journal.db"), synchronous: "full", readOnly: false });
    return await compare("sqlite full", journal, bare, durationMs, say);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** One row and one synchronous commit for each. */
function bareSqlite(path: string): () => Promise<void> {
  const db = new DatabaseSync(path);
  db.exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(n INTEGER PRIMARY KEY, body BLOB)");
  const insert = db.prepare("INSERT INTO t(body) VALUES (?)");
  return async () => void insert.run(BODY);
}

async function jetstream(durationMs: number, say: (line: string) => void): Promise<Row[]> {
  await using nats = await startNats({ jetstream: true });
  const connection = await connect({ servers: nats.url });
  const echo = connection.subscribe("bench.echo", { callback: (_, message) => void message.respond(message.data) });
  await using journal = await openJetstreamJournal({ connection: await connect({ servers: nats.url }), replicas: 1 });
  const rows = await compare("jetstream", journal, () => connection.request("bench.echo", BODY), durationMs, say);
  echo.unsubscribe();
  await connection.close();
  return rows;
}

async function compare(
  name: string,
  journal: Journal,
  bare: () => Promise<unknown>,
  durationMs: number,
  say: (line: string) => void,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (const concurrency of [1, 32]) {
    const base = await measure(bare, { concurrency, durationMs, warmUpMs: 200 });
    const heads: Head[] = Array.from({ length: concurrency }, () => GENESIS);
    const free = [...heads.keys()];
    const append = async (): Promise<void> => {
      const lane = free.pop() ?? 0;
      const head = heads[lane] ?? GENESIS;
      heads[lane] = await journal.append(`session.bench.c${concurrency}-${lane}`, head, [{ timeMs: 1, body: BODY }]);
      free.push(lane);
    };
    const ours = await measure(append, { concurrency, durationMs, warmUpMs: 200 });
    const label = `${name} append c=${concurrency}`;
    say(`${label}: ${ours.count} appends`);
    rows.push(
      ratioRow(label, "p50 ms", ours.p50Ms, base.p50Ms),
      ratioRow(label, "records/s", ours.perSecond, base.perSecond),
    );
  }
  return rows;
}
