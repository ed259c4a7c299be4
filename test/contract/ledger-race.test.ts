import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "@nats-io/transport-node";
import fc from "fast-check";
import { expect, it } from "vitest";
import { eventsOf } from "../../services/ledger/codec.ts";
import { type Command, ledgerDecider } from "../../services/ledger/decider.ts";
import { listBudgets } from "../../services/ledger/listing.ts";
import {
  AUTHOR,
  commandOf,
  elapsed,
  OWN_UNITS,
  PlainLedger,
  RULES,
  ruleOf,
} from "../../services/ledger/plain-fixture.ts";
import type { LedgerExecutor } from "../../services/ledger/revisions.ts";
import { partsOf } from "../../services/ledger/rules.ts";
import type { LedgerEvent, Order } from "../../services/ledger/state.ts";
import { Executor } from "../../services/shared/executor.ts";
import { openJetstreamJournal } from "../../services/shared/journal/jetstream.ts";
import type { Journal } from "../../services/shared/journal/journal.ts";
import { openSqliteJournal } from "../../services/shared/journal/sqlite.ts";
import { startNats } from "../support/nats.ts";

/**
 * Several ledgers at once on one tenant's stream: generated commands, each sent to one of them or to several, with
 * clocks that disagree and ledgers that are thrown away in the middle of their work. Afterwards the stream itself is
 * read as one history: every event of it must be one that the plain ledger allows there, and nothing that was
 * acknowledged may be missing.
 */

const COMMANDS = process.env["FULL"] === "1" ? 100_000 : 4_000;
/** Of one tenant's history: longer ones only meet budgets that are empty. */
const LENGTH = 400;
const LEDGERS = 3;
const AT_ONCE = 64;
const START_MS = Date.UTC(2026, 0, 31, 20, 59, 30);

type Sent = { readonly command: Command; readonly to: readonly number[]; readonly crash: number | undefined };

function commandsOf(count: number): Sent[] {
  const ids = fc.integer({ min: 0, max: Math.ceil(count / 8) }).map((n) => `r${n}`);
  const one = fc.record({
    make: commandOf(ids),
    elapsedMs: elapsed,
    skewMs: fc.constantFrom(0, 0, 0, -700, 900),
    to: fc.subarray([0, 1, 2], { minLength: 1 }),
    crash: fc.option(fc.integer({ min: 0, max: LEDGERS - 1 }), { freq: 150, nil: undefined }),
  });
  let nowMs = START_MS;
  return fc.sample(one, { numRuns: count, seed: Number(process.env["SEED"] ?? Date.now() % 1_000_000) }).map((of) => {
    nowMs += of.elapsedMs;
    const made = of.make(nowMs + of.skewMs);
    // Its ancestors' names are not in the record, so what they would add cannot be checked from it.
    const command = made.kind === "reserve" ? { ...made, ancestors: [] } : made;
    return { command, to: of.to, crash: of.crash };
  });
}

type Fresh = { readonly journal: Journal; readonly ledger: LedgerExecutor };

async function race(open: () => Promise<Journal>): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const journals = await Promise.all(Array.from({ length: LEDGERS }, open));
  for (const journal of new Set(journals)) stack.use(journal);
  const start = (i: number): Fresh => {
    const journal = journals[i];
    if (journal === undefined) throw new Error("no journal");
    return { journal, ledger: new Executor({ journal, decider: ledgerDecider, now: Date.now, snapshotEvery: 70 }) };
  };
  const ledgers = journals.map((_, i) => start(i).ledger);
  for (let round = 0; round < COMMANDS / LENGTH; round++) await raceOn(`ledger.t${round}`, ledgers, start);
  for (const ledger of ledgers) await ledger[Symbol.asyncDispose]();
}

/** One tenant's history. A ledger that is thrown away is replaced by a fresh one. */
async function raceOn(stream: string, ledgers: LedgerExecutor[], start: (i: number) => Fresh): Promise<void> {
  const send = async (i: number, command: Command): Promise<boolean> => {
    const decided = await ledgers[i]?.execute(stream, command);
    return decided?.kind === "accepted";
  };
  const rules = RULES.map(({ rule }) => rule);
  const revise = {
    kind: "revise",
    revision: "r1",
    tenant: "shop",
    units: OWN_UNITS,
    rules,
    part: 1,
    parts: 1,
  } as const;
  await send(0, { ...revise, author: AUTHOR, nowMs: START_MS });
  const acknowledged: Command[] = [];
  const sent = commandsOf(LENGTH);
  for (let at = 0; at < sent.length; at += AT_ONCE) {
    const some = sent.slice(at, at + AT_ONCE);
    const answers = some.flatMap(({ command, to, crash }) => {
      const asked = to.map((i) => send(i, command));
      if (crash !== undefined) ledgers[crash] = start(crash).ledger; // what it was about to append may still land
      return asked.map(async (answer) => {
        if (await answer) acknowledged.push(command);
      });
    });
    await Promise.all(answers);
  }
  await audit(stream, start(0), acknowledged);
}

async function audit(stream: string, { journal, ledger }: Fresh, acknowledged: readonly Command[]): Promise<void> {
  const plain = new PlainLedger();
  let events = 0;
  let lastMs = START_MS;
  for await (const { body } of journal.read(stream, 0)) {
    for (const event of eventsOf(body)) {
      events += 1;
      const command = commandThatLeftIt(event);
      if (command === undefined) continue;
      lastMs = command.nowMs;
      if (!plain.apply(command)) throw new Error(`event ${events} is not allowed there: ${event.kind}`);
      if (event.kind !== "expired") continue;
      for (const id of event.ids) expect(plain.reservations.get(id)?.status).toBe("expired");
    }
  }
  expect(events).toBeGreaterThan(LENGTH / 20);
  for (const command of acknowledged) {
    if (command.kind === "reserve" && !plain.reservations.has(command.id)) throw new Error(`${command.id} is lost`);
    if (command.kind === "commit") expect(plain.reservations.get(command.id)?.status).toBe("committed");
  }
  const lines = await ledger.read(stream, (state) => listBudgets(state, lastMs));
  const shown = new Map(lines.map((line) => [`${line.name} ${line.subject}`, line]));
  for (const key of plain.keys()) {
    const { held, spent, granted, limit } = plain.figures(key, lastMs);
    const line = shown.get(`${ruleOf(key).rule.name} ${partsOf(key).subject}`);
    expect(line && [line.held, line.spent, line.granted, line.limit]).toEqual([held, spent, granted, limit]);
    expect(line?.available).toBe(limit + granted - held - spent);
  }
}

/** What the plain ledger has to be told for it to do the same. */
function commandThatLeftIt(event: LedgerEvent): Command | undefined {
  switch (event.kind) {
    case "reserved": {
      const { id, spender, amounts, expiresAtMs, atMs } = event;
      return { kind: "reserve", id, spender, ancestors: [], amounts, expiresAtMs, nowMs: atMs };
    }
    case "committed": {
      const { id, amounts, late, atMs } = event;
      return { kind: "commit", id, amounts, late: late !== undefined, nowMs: atMs };
    }
    case "released":
      return { kind: "release", id: event.id, nowMs: event.atMs };
    case "extended":
      return { kind: "extend", id: event.id, expiresAtMs: event.expiresAtMs, nowMs: event.atMs };
    case "expired":
      return { kind: "expire", nowMs: event.atMs };
    case "ordered": {
      const nowMs = event.order.kind === "grant" ? event.order.startMs : 0;
      return { kind: "order", key: event.key, request: requestOf(event.order), author: event.author, nowMs };
    }
    case "revised":
      return undefined;
  }
}

function requestOf(order: Order): Extract<Command, { kind: "order" }>["request"] {
  switch (order.kind) {
    case "raise": {
      const [id = "", subject] = order.target.split(" = ");
      return { kind: "raise", budget: id.split(" ")[0] ?? "", subject, limit: order.limit };
    }
    case "grant": {
      const { name, subject } = partsOf(order.account);
      return { kind: "grant", budget: name, subject, value: order.value };
    }
    case "freeze":
    case "thaw":
      return order;
  }
}

const title = `${LEDGERS} ledgers at once leave one sound history of ${COMMANDS.toLocaleString("en")} commands`;

it(`SQLite: ${title}`, { timeout: 600_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "ledger-race-"));
  try {
    const journal = openSqliteJournal({ path: join(folder, "j.db"), synchronous: "normal", readOnly: false });
    await race(async () => journal);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it(`JetStream: ${title}`, { timeout: 600_000 }, async () => {
  await using nats = await startNats({ jetstream: true });
  await race(async () => openJetstreamJournal({ connection: await connect({ servers: nats.url }), replicas: 1 }));
});
