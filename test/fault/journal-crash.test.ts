import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { openJetstreamJournal } from "../../services/shared/journal/jetstream.ts";
import type { Journal } from "../../services/shared/journal/journal.ts";
import { openSqliteJournal } from "../../services/shared/journal/sqlite.ts";
import { verifyJournal } from "../../services/shared/journal/verify.ts";
import { startNats } from "../support/nats.ts";
import type { TallyEvent } from "./tally.ts";

/** A process that writes through the executor is killed by SIGKILL at random moments, again and again. */

const KILLS = 50;

type Place = { readonly kind: string; readonly at: string; readonly open: () => Promise<Journal> };

/** One life of a writer: how much it gets done before it dies is chance. Returns what it said was acknowledged. */
async function liveAndDie(place: Place, round: number): Promise<string[]> {
  const writer = join(import.meta.dirname, "writer.ts");
  const child = spawn(process.execPath, [writer, place.kind, place.at, String(round)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  let errors = "";
  const enough = 1 + Math.floor(Math.random() * 150);
  const gone = once(child, "exit");
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  child.stdout.on("data", (chunk: Buffer) => {
    said += chunk.toString();
    if (said.split("\n").length > enough) child.kill("SIGKILL");
  });
  const [, signal] = (await gone) as [number | null, string | null];
  expect(signal, `the writer ended by itself: ${errors}`).toBe("SIGKILL");
  const lines = said.slice(0, said.lastIndexOf("\n") + 1).split("\n");
  return lines.filter((line) => line.startsWith("session."));
}

async function survives(place: Place): Promise<void> {
  const acknowledged = new Set<string>();
  for (let round = 0; round < KILLS; round++) {
    for (const line of await liveAndDie(place, round)) acknowledged.add(line);
  }
  expect(acknowledged.size).toBeGreaterThan(KILLS * 20);
  await using journal = await place.open();
  const parts = new Map<string, TallyEvent[]>();
  for await (const stream of journal.streams("session.crash.")) {
    for await (const record of journal.read(stream, 0)) {
      const event = JSON.parse(Buffer.from(record.body).toString("utf8")) as TallyEvent;
      const key = `${stream} ${event.id}`;
      parts.set(key, [...(parts.get(key) ?? []), event]);
    }
  }
  const lost = [...acknowledged].filter((key) => !parts.has(key));
  expect(lost).toEqual([]);
  const doubledOrHalf = [...parts].filter(
    ([, events]) => !events.every((e, i) => e.part === i && e.parts === events.length),
  );
  expect(doubledOrHalf).toEqual([]);
  expect(await verifyJournal(journal, { publicKeys: [] })).toMatchObject({ kind: "ok" });
}

it.concurrent("SQLite: nothing acknowledged is lost, nothing is doubled, the chain verifies", {
  timeout: 240_000,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), "interlock-crash-"));
  const at = join(folder, "journal.db");
  try {
    await survives({
      kind: "sqlite",
      at,
      open: async () => openSqliteJournal({ path: at, synchronous: "full", readOnly: false }),
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it.concurrent("JetStream: nothing acknowledged is lost, nothing is doubled, the chain verifies", {
  timeout: 240_000,
}, async () => {
  await using nats = await startNats({ jetstream: true });
  const open = async () =>
    await openJetstreamJournal({ connection: await connect({ servers: nats.url }), replicas: 1 });
  await survives({ kind: "jetstream", at: nats.url, open });
});
