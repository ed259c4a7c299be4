import { connect } from "@nats-io/transport-node";
import { Executor } from "../../services/shared/executor.ts";
import { openJetstreamJournal } from "../../services/shared/journal/jetstream.ts";
import type { Journal } from "../../services/shared/journal/journal.ts";
import { openSqliteJournal } from "../../services/shared/journal/sqlite.ts";
import { tallyDecider } from "./tally.ts";

/**
 * Writes as fast as it can until it is killed: `writer.ts sqlite|jetstream PLACE ROUND`. Prints `stream id` for each
 * command once it is acknowledged, and every other command twice, as a caller does who got no answer.
 */
const [kind = "", place = "", round = ""] = process.argv.slice(2);

async function open(): Promise<Journal> {
  if (kind === "sqlite") return openSqliteJournal({ path: place, synchronous: "full", readOnly: false });
  return await openJetstreamJournal({ connection: await connect({ servers: place }), replicas: 1 });
}

const executor = new Executor({ journal: await open(), decider: tallyDecider, now: Date.now, snapshotEvery: 40 });
console.log("ready");

async function write(lane: number): Promise<never> {
  const stream = `session.crash.s${lane % 3}`;
  for (let n = 0; ; n++) {
    const id = `${round}-${lane}-${n}`;
    const tries = n % 2 === 0 ? 1 : 2;
    const answers = await Promise.all(
      Array.from({ length: tries }, () => executor.execute(stream, { kind: "add", id, parts: 1 + (n % 3) })),
    );
    if (answers.every((answer) => answer.kind === "accepted")) console.log(`${stream} ${id}`);
  }
}
await Promise.all(Array.from({ length: 12 }, (_, lane) => write(lane)));
