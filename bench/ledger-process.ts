import { connect } from "@nats-io/transport-node";
import { openJetstreamJournal } from "../services/shared/journal/jetstream.ts";
import { executorOn, pair } from "./ledger-load.ts";
import { measure } from "./load.ts";

/** One ledger process over JetStream: `ledger-process.ts URL TENANT CONCURRENCY MS`. Prints what it measured. */
const [url = "", tenant = "", concurrency = "", durationMs = ""] = process.argv.slice(2);
const journal = await openJetstreamJournal({ connection: await connect({ servers: url }), replicas: 1 });
const executor = executorOn(journal);
const load = await measure(() => pair(executor, tenant), {
  ...{ concurrency: Number(concurrency), durationMs: Number(durationMs), warmUpMs: 300 },
});
await executor[Symbol.asyncDispose]();
await journal[Symbol.asyncDispose]();
console.log(JSON.stringify(load));
