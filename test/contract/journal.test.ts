import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "@nats-io/transport-node";
import { openJetstreamJournal } from "../../services/shared/journal/jetstream.ts";
import { openSqliteJournal } from "../../services/shared/journal/sqlite.ts";
import { startNats } from "../support/nats.ts";
import { journalConformance, type OpenedJournal } from "./journal-suite.ts";

const ENGINES: readonly { readonly name: string; readonly open: () => Promise<OpenedJournal> }[] = [
  { name: "SQLite, synchronous full", open: () => openSqlite("full") },
  { name: "SQLite, synchronous normal", open: () => openSqlite("normal") },
  { name: "JetStream", open: openJetstream },
];

for (const { name, open } of ENGINES) journalConformance(name, open);

async function openSqlite(synchronous: "full" | "normal"): Promise<OpenedJournal> {
  const directory = mkdtempSync(join(tmpdir(), "interlock-journal-"));
  const open = () => openSqliteJournal({ path: join(directory, "journal.db"), synchronous, readOnly: false });
  let journal = open();
  return {
    journal,
    reopen: async () => {
      await journal[Symbol.asyncDispose]();
      journal = open();
      return journal;
    },
    [Symbol.asyncDispose]: async () => {
      await journal[Symbol.asyncDispose]();
      rmSync(directory, { recursive: true });
    },
  };
}

async function openJetstream(): Promise<OpenedJournal> {
  const nats = await startNats({ jetstream: true });
  const open = async () =>
    await openJetstreamJournal({ connection: await connect({ servers: nats.url }), replicas: 1 });
  let journal = await open();
  return {
    journal,
    reopen: async () => {
      await journal[Symbol.asyncDispose]();
      journal = await open();
      return journal;
    },
    [Symbol.asyncDispose]: async () => {
      await journal[Symbol.asyncDispose]();
      await nats[Symbol.asyncDispose]();
    },
  };
}
