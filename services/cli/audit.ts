import type { Command } from "commander";
import { openJournal } from "../interlock.ts";
import { type Config, configSchema, readConfig } from "../shared/config.ts";
import type { Recorded } from "../shared/journal/journal.ts";
import { verifyJournal } from "../shared/journal/verify.ts";
import { readTrustedKeys } from "../shared/state-dir.ts";
import { CliError, EXIT } from "./exit.ts";
import { printable } from "./print.ts";
import { globalsOf } from "./session.ts";

type AuditFlags = { config?: string; nats?: string };

/** `audit verify|tail`: reads the journal itself, without trusting a running Interlock. */
export function addAudit(program: Command): void {
  const audit = program.command("audit").description("read the journal: the record of everything that happened");
  const reading = (command: Command) =>
    command
      .option("--config <file>", "interlock.yaml")
      .option("--nats <url>", "the journal is in JetStream here; default: SQLite in the state directory");
  reading(audit.command("verify").description("walk every record and name the first that was changed")).action(
    async (flags: AuditFlags, command: Command) => {
      const config = auditConfig(flags, command);
      await using journal = await openJournal(config, { readOnly: true });
      const verdict = await verifyJournal(journal, { publicKeys: readTrustedKeys(config) });
      const { json } = globalsOf(command);
      switch (verdict.kind) {
        case "ok":
          if (json) console.log(JSON.stringify(verdict));
          else
            console.log(
              `The journal is whole: ${verdict.records} records in ${verdict.streams} streams, ${verdict.checkpoints} checkpoints.`,
            );
          return;
        case "broken":
          if (json) console.log(JSON.stringify(verdict));
          else console.log(`BROKEN at ${verdict.stream} record ${verdict.seq}: ${verdict.what}`);
          process.exitCode = EXIT.failed;
          return;
      }
    },
  );
  reading(audit.command("tail").description("print records as they are written"))
    .option("--prefix <text>", "only streams that start so, e.g. session.demo", "")
    .option("--from-start", "from the first record on")
    .option("--no-follow", "stop at the present end")
    .action(async (flags: AuditFlags & { prefix: string; fromStart?: boolean; follow: boolean }, command: Command) => {
      const config = auditConfig(flags, command);
      await using journal = await openJournal(config, { readOnly: true });
      const { json } = globalsOf(command);
      if (!flags.follow) {
        const all: Recorded[] = [];
        for await (const stream of journal.streams(flags.prefix)) {
          for await (const record of journal.read(stream, 0)) all.push(record);
        }
        all.sort((a, b) => a.position - b.position);
        for (const record of all) printRecord(record, json);
        return;
      }
      const stop = new AbortController();
      process.once("SIGINT", () => stop.abort());
      const after = flags.fromStart === true ? 0 : await lastPosition(journal);
      for await (const record of journal.watch(flags.prefix, after, stop.signal)) printRecord(record, json);
    });
}

async function lastPosition(journal: Awaited<ReturnType<typeof openJournal>>): Promise<number> {
  let last = 0;
  for await (const stream of journal.streams("")) {
    for await (const record of journal.read(stream, 0)) last = Math.max(last, record.position);
  }
  return last;
}

function auditConfig(flags: AuditFlags, command: Command): Config {
  const { state } = globalsOf(command);
  const base = flags.config === undefined ? configSchema.parse({ state }) : readConfig(flags.config);
  if (flags.nats === undefined) return base;
  const parsed = configSchema.safeParse({ ...base, nats: { ...base.nats, url: flags.nats } });
  if (!parsed.success) throw new CliError(`--nats ${flags.nats}: ${parsed.error.issues[0]?.message}.`);
  return parsed.data;
}

function printRecord(record: Recorded, json: boolean): void {
  const body = new TextDecoder().decode(record.body);
  const time = new Date(record.timeMs).toISOString();
  if (json) {
    const hash = Buffer.from(record.hash).toString("hex");
    console.log(JSON.stringify({ stream: record.stream, seq: record.seq, time, hash, body: JSON.parse(body) }));
  } else {
    console.log(`${time} ${record.stream} #${record.seq} ${printable(body)}`);
  }
}
