import type { Command } from "commander";
import { type Config, configSchema, readConfig } from "../shared/config.ts";
import type { Journal, Recorded } from "../shared/journal/journal.ts";
import { verifyJournal } from "../shared/journal/verify.ts";
import { readTrustedKeys } from "../shared/state-dir.ts";
import { CliError, EXIT, mendable } from "./exit.ts";
import { jsonLine, printable } from "./print.ts";
import { globalsOf } from "./session.ts";

type AuditFlags = { config?: string; nats?: string };
type TailFlags = AuditFlags & { prefix: string; fromStart?: boolean; follow: boolean };

/** `audit verify|tail`: reads the journal itself, without trusting a running Interlock. */
export function addAudit(program: Command): void {
  const audit = program.command("audit").description("read the journal: the record of everything that happened");
  const reading = (command: Command) =>
    command
      .option("--config <file>", "interlock.yaml")
      .option("--nats <url>", "the journal is in JetStream here; default: SQLite in the state directory");
  reading(audit.command("verify").description("walk every record and name the first that was changed")).action(verify);
  reading(audit.command("tail").description("print records as they are written"))
    .option("--prefix <text>", "only streams that start so, e.g. session.demo", "")
    .option("--from-start", "from the first record on")
    .option("--no-follow", "print what is there, and stop")
    .action(tail);
}

async function verify(flags: AuditFlags, command: Command): Promise<void> {
  const config = auditConfig(flags, command);
  await using journal = await open(config);
  const publicKeys = readTrustedKeys(config);
  const verdict = await mendable(unreadable(config), () => verifyJournal(journal, { publicKeys }));
  if (globalsOf(command).json) console.log(jsonLine(verdict));
  switch (verdict.kind) {
    case "ok": {
      const { records, streams, checkpoints } = verdict;
      const counts = `${counted(records, "record")} in ${counted(streams, "stream")}, ${counted(checkpoints, "checkpoint")}`;
      if (!globalsOf(command).json) console.log(`The journal is whole: ${counts}.`);
      return;
    }
    case "broken": {
      const { stream, seq, what } = verdict;
      if (!globalsOf(command).json) console.log(printable(`BROKEN at ${stream} record ${seq}: ${what}`));
      process.exitCode = EXIT.failed;
      return;
    }
  }
}

async function tail(flags: TailFlags, command: Command): Promise<void> {
  const { json } = globalsOf(command);
  const config = auditConfig(flags, command);
  await using journal = await open(config);
  await mendable(unreadable(config), async () => {
    if (!flags.follow) {
      for (const record of await everyRecord(journal, flags.prefix)) printRecord(record, json);
      return;
    }
    const stop = new AbortController();
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
    const after = flags.fromStart === true ? 0 : await lastPosition(journal);
    for await (const record of journal.watch(flags.prefix, after, stop.signal)) printRecord(record, json);
  });
}

async function open(config: Config): Promise<Journal> {
  const { openJournal } = await import("../interlock.ts");
  return await mendable(EXIT.unavailable, () => openJournal(config, { readOnly: true }));
}

/** A file that cannot be read to its end is not whole; a NATS that goes away says nothing about the journal. */
function unreadable(config: Config): number {
  return config.nats === undefined ? EXIT.failed : EXIT.unavailable;
}

async function everyRecord(journal: Journal, prefix: string): Promise<Recorded[]> {
  const all: Recorded[] = [];
  for await (const stream of journal.streams(prefix)) {
    for await (const record of journal.read(stream, 0)) all.push(record);
  }
  return all.sort((a, b) => a.position - b.position);
}

async function lastPosition(journal: Journal): Promise<number> {
  let last = 0;
  for await (const stream of journal.streams("")) {
    for await (const record of journal.read(stream, 0)) last = Math.max(last, record.position);
  }
  return last;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
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
    console.log(jsonLine({ stream: record.stream, seq: record.seq, time, hash, body: parsed(body) }));
  } else {
    console.log(`${time} ${record.stream} #${record.seq} ${printable(body).replaceAll("\n", "\\n")}`);
  }
}

/** Whoever looks for what was changed must be shown it too. */
function parsed(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return body;
  }
}
