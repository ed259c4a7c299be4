import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import { JournalUnavailable } from "../shared/journal/journal.ts";
import { openSqliteJournal } from "../shared/journal/sqlite.ts";
import { silentLog } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { localClient } from "../shared/rpc/local.ts";
import { service } from "../shared/rpc/service.ts";
import type { Caller, Client } from "../shared/rpc/types.ts";
import { type Budgets, tenantBudgets } from "./budgets.ts";
import { ruleOf } from "./fixture.ts";
import { MAX_LISTED } from "./listing.ts";
import type { Rule } from "./rules.ts";
import { startLedger } from "./service.ts";

const BROKER: Caller = { kind: "service", name: "broker" };
const OPERATOR: Caller = { kind: "person", tenant: "shop", name: "olga", roles: ["operator"], groups: [] };
const AGENT: Caller = { kind: "agent", tenant: "shop", agent: "a1" };
const BUDGETS = [
  ruleOf("all-usd", { limit: 50n }),
  ruleOf("agent-calls", { scope: "agent", unit: "calls", limit: 100_000n }),
  ruleOf("pay", { scope: "tool:payroll.pay", unit: "calls", limit: 7n }),
];
const budgetsOf = (rules: readonly Rule[]): Budgets => ({
  size: rules.length,
  units: [],
  tenants: ["shop"],
  ofTenant: (tenant) => tenantBudgets(tenant, [], tenant === "shop" ? rules : []),
});
const START_MS = Date.UTC(2026, 0, 1);

let folder: string;
let path: string;
let files = 0;
let nowMs = START_MS;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ledger-"));
});
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(() => {
  path = join(folder, `${files++}.db`);
  nowMs = START_MS;
});

type Started = { client: Client<typeof LedgerService>; as: (caller: Caller) => Client<typeof LedgerService> };

/** A ledger on the journal of this test; started again, it finds what the one before it wrote. */
async function start(budgets = BUDGETS, now = () => nowMs): Promise<Started & AsyncDisposable> {
  const journal = openSqliteJournal({ path, synchronous: "normal", readOnly: false });
  const ledger = await startLedger({ journal, budgets: budgetsOf(budgets), now, log: silentLog });
  const as = (caller: Caller) => localClient<typeof LedgerService>(service(LedgerService, ledger.handlers), { caller });
  return {
    client: as(BROKER),
    as,
    [Symbol.asyncDispose]: async () => {
      await ledger[Symbol.asyncDispose]();
      await journal[Symbol.asyncDispose]();
    },
  };
}

const principal = { tenant: "shop", agent: "a1", session: "s1" };
const reserve = (reservationId: string, usd = 10n) => ({
  reservationId,
  principal,
  tool: "report.summarise",
  amounts: amounts(usd),
  expireTime: timestampFromMs(START_MS + 60_000),
});
const amounts = (usd: bigint) => [
  { unit: "calls", value: 1n },
  { unit: "usd_micros", value: usd },
];
const ref = (reservationId: string) => ({ tenant: "shop", reservationId });

async function refusalOf(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof RpcError) return error;
  throw new Error("it was not refused", { cause: error });
}

async function listed(client: Client<typeof LedgerService>): Promise<Record<string, readonly bigint[]>> {
  const { budgets } = await client.listBudgets({ tenant: "shop" });
  return Object.fromEntries(
    budgets.map(({ name, subject, available, held, spent, limit }) => {
      expect(available + held + spent).toBe(limit);
      return [`${name} ${subject}`, [available, held, spent]];
    }),
  );
}

describe("holds", () => {
  it("are taken, settled, given back and moved, and outlive a restart", async () => {
    {
      await using ledger = await start();
      expect(await listed(ledger.client)).toEqual({
        "all-usd shop": [50n, 0n, 0n],
        "agent-calls *": [100_000n, 0n, 0n],
        "pay payroll.pay": [7n, 0n, 0n],
      });
      const { budgets } = await ledger.client.reserve(reserve("r1"));
      expect(budgets).toEqual(["all-usd", "agent-calls"]);
      for (const id of ["r2", "r3", "r4"]) await ledger.client.reserve(reserve(id));
      await ledger.client.commit({ ...ref("r1"), amounts: amounts(15n) });
      await ledger.client.release(ref("r2"));
      await ledger.client.extend({ ...ref("r3"), expireTime: timestampFromMs(START_MS + 120_000) });
    }
    await using ledger = await start();
    expect(await listed(ledger.client)).toMatchObject({
      "all-usd shop": [15n, 20n, 15n],
      "agent-calls a1": [99_997n, 2n, 1n],
    });
    nowMs += 60_000;
    expect(await listed(ledger.client)).toMatchObject({ "all-usd shop": [25n, 10n, 15n] });
    nowMs += 60_000;
    expect(await listed(ledger.client)).toMatchObject({ "all-usd shop": [35n, 0n, 15n] });
    expect(await refusalOf(ledger.client.commit({ ...ref("r4"), amounts: amounts(1n) }))).toMatchObject({
      reason: "RESERVATION_EXPIRED",
    });
    await ledger.client.commit({ ...ref("r4"), amounts: amounts(1n), late: true });
    expect(await listed(ledger.client)).toMatchObject({ "all-usd shop": [34n, 0n, 16n] });
  });

  it("end by themselves when nobody asks", async () => {
    await using ledger = await start(BUDGETS, Date.now);
    await ledger.client.reserve({ ...reserve("r1"), expireTime: timestampFromMs(Date.now() + 20) });
    await nextRecord("expired");
  });

  it("of an earlier run end by themselves too", async () => {
    {
      await using ledger = await start(BUDGETS, () => Date.now() - 60_000);
      await ledger.client.reserve({ ...reserve("r1"), expireTime: timestampFromMs(Date.now() - 1) });
    }
    await using _ledger = await start(BUDGETS, Date.now);
    await nextRecord("expired");
  });

  it("200 at once for 50 of money: exactly 50 are accepted, here and after a restart", async () => {
    const ids = Array.from({ length: 200 }, (_, i) => `r${i}`);
    const answers = async (client: Client<typeof LedgerService>) => {
      const settled = await Promise.allSettled(ids.map((id) => client.reserve(reserve(id, 1n))));
      return settled.map((one) => (one.status === "fulfilled" ? "accepted" : (one.reason as RpcError).reason));
    };
    const first = await (async () => {
      await using ledger = await start();
      return await answers(ledger.client);
    })();
    expect(first.filter((answer) => answer === "accepted")).toHaveLength(50);
    expect(first.filter((answer) => answer === "BUDGET_EXHAUSTED")).toHaveLength(150);
    await using ledger = await start();
    expect(await answers(ledger.client)).toEqual(first);
    expect(await listed(ledger.client)).toMatchObject({ "all-usd shop": [0n, 50n, 0n] });
  });
});

/** Waits for a record of the kind, as whoever opens the journal beside the ledger sees it. */
async function nextRecord(kind: string): Promise<void> {
  await using journal = openSqliteJournal({ path, synchronous: "normal", readOnly: true });
  const kinds = async (): Promise<string[]> => {
    const bodies = await Array.fromAsync(journal.read("ledger.shop", 0), ({ body }) => Buffer.from(body).toString());
    return bodies.flatMap((body) => (JSON.parse(body) as { kind: string }[]).map((event) => event.kind));
  };
  await vi.waitFor(async () => expect(await kinds()).toContain(kind), { timeout: 15_000 });
}

describe("refusals", () => {
  it("say which budget lacks how much", async () => {
    await using ledger = await start();
    await ledger.client.reserve(reserve("r1", 45n));
    expect(await refusalOf(ledger.client.reserve(reserve("r2")))).toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      reason: "BUDGET_EXHAUSTED",
      message:
        "Budget all-usd of tenant shop has 5 of 50 usd_micros left, and 10 are asked for; " +
        "ask an operator to raise or grant.",
      metadata: {
        budget: "all-usd",
        scope: "tenant",
        subject: "shop",
        unit: "usd_micros",
        window: "total",
        limit: "50",
        granted: "0",
        available: "5",
        asked: "10",
      },
    });
  });
});

const PAST = { expireTime: timestampFromMs(START_MS) };
const LATER = { expireTime: timestampFromMs(START_MS + 99_000) };
const WRONG_TIME = { expireTime: { seconds: 1n << 62n, nanos: 0 } };
type Ask = (client: Client<typeof LedgerService>) => Promise<unknown>;
const WRONG: readonly [string, Ask, string][] = [
  ["no id", (c) => c.reserve(reserve("")), "INVALID_ARGUMENT FIELD_MISSING reservation_id"],
  ["no principal", (c) => c.reserve({ reservationId: "r" }), "INVALID_ARGUMENT FIELD_MISSING principal.tenant"],
  [
    "no session",
    (c) => c.reserve({ ...reserve("r"), principal: { tenant: "shop", agent: "a1" } }),
    "INVALID_ARGUMENT FIELD_MISSING principal.session",
  ],
  ["no tool", (c) => c.reserve({ ...reserve("r"), tool: "Tool!" }), "INVALID_ARGUMENT FIELD_INVALID tool"],
  [
    "no end",
    ({ reserve: send }) => send({ reservationId: "r", principal, tool: "x.y" }),
    "INVALID_ARGUMENT FIELD_INVALID expire_time",
  ],
  ["no such time", (c) => c.reserve({ ...reserve("r"), ...WRONG_TIME }), "INVALID_ARGUMENT FIELD_INVALID expire_time"],
  ["a past end", (c) => c.reserve({ ...reserve("r"), ...PAST }), "INVALID_ARGUMENT EXPIRE_TIME_PASSED expire_time"],
  ["an amount below zero", (c) => c.reserve(reserve("r", -1n)), "INVALID_ARGUMENT AMOUNT_INVALID amounts"],
  [
    "an unknown unit",
    (c) => c.reserve({ ...reserve("r"), amounts: [{ unit: "dollars", value: 1n }] }),
    "INVALID_ARGUMENT AMOUNT_INVALID amounts",
  ],
  ["other amounts", (c) => c.reserve(reserve("held", 2n)), "ALREADY_EXISTS RESERVATION_MISMATCH amounts"],
  ["a used id", (c) => c.reserve(reserve("done", 1n)), "FAILED_PRECONDITION RESERVATION_COMMITTED reservation_id"],
  ["a late release", (c) => c.release(ref("done")), "FAILED_PRECONDITION RESERVATION_COMMITTED reservation_id"],
  ["zero", (c) => c.reserve({ ...reserve("r"), amounts: [] }), "INVALID_ARGUMENT AMOUNT_ZERO amounts"],
  [
    "another's amounts committed",
    (c) => c.commit({ ...ref("done"), amounts: amounts(2n) }),
    "ALREADY_EXISTS COMMIT_MISMATCH amounts",
  ],
  [
    "commit after release",
    (c) => c.commit({ ...ref("released"), amounts: amounts(1n) }),
    "FAILED_PRECONDITION RESERVATION_RELEASED reservation_id",
  ],
  [
    "commit for another tenant",
    (c) => c.commit({ tenant: "other", reservationId: "held", amounts: amounts(1n) }),
    "NOT_FOUND RESERVATION_NOT_FOUND reservation_id",
  ],
  [
    "another tenant's ancestor",
    (c) => c.reserve({ ...reserve("r"), ancestors: [{ principal: { ...principal, tenant: "other" }, tool: "x.y" }] }),
    "INVALID_ARGUMENT FIELD_INVALID ancestors[0].principal.tenant",
  ],
  ["commit of nothing", (c) => c.commit(ref("never")), "NOT_FOUND RESERVATION_NOT_FOUND reservation_id"],
  ["commit without tenant", (c) => c.commit({ reservationId: "r" }), "INVALID_ARGUMENT FIELD_MISSING tenant"],
  [
    "commit past counting",
    (c) => c.commit({ ...ref("held"), amounts: amounts((1n << 63n) - 1n) }),
    "OUT_OF_RANGE AMOUNT_TOO_LARGE amounts",
  ],
  [
    "extend of nothing",
    (c) => c.extend({ ...ref("never"), ...LATER }),
    "NOT_FOUND RESERVATION_NOT_FOUND reservation_id",
  ],
  ["extend without end", (c) => c.extend(ref("held")), "INVALID_ARGUMENT FIELD_INVALID expire_time"],
  ["a list of no tenant", (c) => c.listBudgets({}), "INVALID_ARGUMENT FIELD_MISSING tenant"],
];

describe("what is wrong, and where", () => {
  it.each(WRONG)("%s", async (_name, ask, expected) => {
    await using ledger = await start();
    await ledger.client.reserve(reserve("held", 1n));
    await ledger.client.reserve(reserve("done", 1n));
    await ledger.client.commit({ ...ref("done"), amounts: amounts(1n) });
    await ledger.client.reserve(reserve("released", 1n));
    await ledger.client.release(ref("released"));
    const before = await listed(ledger.client);
    const { code, reason, field, message } = await refusalOf(ask(ledger.client));
    expect(`${code} ${reason} ${field}`).toBe(expected);
    expect(message).toMatch(/^[A-Z].*\.$/);
    expect(await listed(ledger.client)).toEqual(before);
  });
});

describe("who may ask", () => {
  const methods = {
    reserve: (c) => c.reserve(reserve("r")),
    commit: (c) => c.commit(ref("r")),
    release: (c) => c.release(ref("r")),
    extend: (c) => c.extend(ref("r")),
  } satisfies Record<string, (client: Client<typeof LedgerService>) => Promise<unknown>>;
  const others = [AGENT, OPERATOR].flatMap((caller) => {
    return Object.entries(methods).map(([name, ask]) => [`${caller.kind} ${name}`, caller, ask] as const);
  });
  it.each(others)("not %s", async (_name, caller, ask) => {
    await using ledger = await start();
    const refusal = await refusalOf(ask(ledger.as(caller)));
    expect(refusal).toMatchObject({ code: "PERMISSION_DENIED", reason: "SERVICES_ONLY" });
  });

  it("people list their own tenant, agents none", async () => {
    await using ledger = await start();
    const own = await ledger.as(OPERATOR).listBudgets({});
    expect(own.budgets.map(({ name }) => name)).toEqual(["all-usd", "agent-calls", "pay"]);
    expect(await ledger.as(OPERATOR).listBudgets({ tenant: "shop" })).toEqual(own);
    const elsewhere = await refusalOf(ledger.as({ ...OPERATOR, tenant: "other" }).listBudgets({ tenant: "shop" }));
    expect(elsewhere).toMatchObject({ code: "NOT_FOUND", reason: "TENANT_NOT_FOUND", field: "tenant" });
    const agent = await refusalOf(ledger.as(AGENT).listBudgets({}));
    expect(agent).toMatchObject({ code: "PERMISSION_DENIED", reason: "PEOPLE_ONLY" });
  });
});

describe("listing", () => {
  it("shows the limit that the file has now, and not what left the file", async () => {
    {
      await using ledger = await start();
      await ledger.client.reserve(reserve("r1"));
      await ledger.client.commit({ ...ref("r1"), amounts: amounts(30n) });
    }
    const [usd] = BUDGETS;
    await using ledger = await start(usd === undefined ? [] : [{ ...usd, limit: 20n }]);
    expect(await listed(ledger.client)).toEqual({ "all-usd shop": [-10n, 0n, 30n] });
    expect(await refusalOf(ledger.client.reserve(reserve("r2", 0n)))).toMatchObject({ reason: "BUDGET_EXHAUSTED" });
    expect((await ledger.as(OPERATOR).listBudgets({})).revisions).toMatchObject([
      { budgets: 1, authorship: { author: "budgets.yaml" } },
      { budgets: 3, authorship: { author: "budgets.yaml" } },
    ]);
  });

  it("of very many subjects shows those with the least left", async () => {
    await using ledger = await start(BUDGETS.slice(1));
    const agents = Array.from({ length: MAX_LISTED + 1 }, (_, i) => `agent-${i}`);
    await Promise.all(
      agents.map((agent, i) => {
        const calls = [{ unit: "calls", value: BigInt(i + 1) }];
        return ledger.client.reserve({ ...reserve(`r${i}`), principal: { ...principal, agent }, amounts: calls });
      }),
    );
    const { budgets } = await ledger.as(OPERATOR).listBudgets({});
    const subjects = budgets.filter(({ name }) => name === "agent-calls").map(({ subject }) => subject);
    expect(subjects).toEqual(agents.slice(1).reverse());
  });
});

describe("operators", () => {
  const yaml = (limit: number, tenant = "shop") =>
    `budgets:\n  - { name: all-usd, tenant: ${tenant}, scope: tenant, unit: usd_micros, limit: ${limit} }\n`;

  it("apply a file, which a process that starts with the old one leaves in force", async () => {
    {
      await using ledger = await start();
      const operator = ledger.as(OPERATOR);
      const dry = await operator.applyBudgets({ yaml: yaml(20), reason: "Less.", dryRun: true });
      expect([dry.changed, (await listed(ledger.client))["all-usd shop"]]).toEqual([false, [50n, 0n, 0n]]);
      const applied = await operator.applyBudgets({ yaml: yaml(20), reason: "Less." });
      expect([applied.changed, applied.revision]).toEqual([true, dry.revision]);
      expect(await operator.applyBudgets({ yaml: yaml(20), reason: "Again." })).toMatchObject({ changed: false });
    }
    await using ledger = await start();
    expect(await listed(ledger.client)).toEqual({ "all-usd shop": [20n, 0n, 0n] });
    const { revisions } = await ledger.as(OPERATOR).listBudgets({});
    expect(revisions.map(({ authorship }) => `${authorship?.author}: ${authorship?.reason}`)).toEqual([
      "olga: Less.",
      "budgets.yaml: The file was changed.",
    ]);
  });

  it("raise, grant, freeze and thaw, each with its author and reason", async () => {
    await using ledger = await start();
    const operator = ledger.as(OPERATOR);
    await ledger.client.reserve(reserve("r1", 50n));
    await operator.grantBudget({ key: "k1", budget: "all-usd", value: 5n, reason: "Month end." });
    await operator.raiseBudget({ key: "k2", budget: "all-usd", limit: 60n, reason: "More work." });
    await operator.freezeBudget({ key: "k3", selector: "agent:a1", reason: "It looks odd." });
    expect(await refusalOf(ledger.client.reserve(reserve("r2", 1n)))).toMatchObject({
      code: "FAILED_PRECONDITION",
      reason: "BUDGET_FROZEN",
      message: "olga froze agent:a1 (It looks odd.); ask them to thaw it.",
    });
    const { budgets, frozen } = await operator.listBudgets({});
    expect(budgets[0]).toMatchObject({ limit: 60n, granted: 5n, held: 50n, available: 15n });
    expect(budgets[0]?.raised).toMatchObject({ author: "olga", reason: "More work." });
    expect(frozen).toMatchObject([{ selector: "agent:a1", authorship: { author: "olga" } }]);
    await operator.thawBudget({ key: "k4", selector: "agent:a1", reason: "It was the tests." });
    await ledger.client.reserve(reserve("r2", 15n));
    expect(await refusalOf(ledger.client.reserve(reserve("r3", 1n)))).toMatchObject({ reason: "BUDGET_EXHAUSTED" });
  });

  const wrong: readonly [string, Ask, string][] = [
    ["no reason", (c) => c.freezeBudget({ key: "k", selector: "tenant" }), "FIELD_INVALID reason"],
    ["no key", (c) => c.freezeBudget({ selector: "tenant", reason: "x" }), "FIELD_INVALID key"],
    ["no budget", (c) => c.grantBudget({ key: "k", budget: "eur", value: 1n, reason: "x" }), "BUDGET_NOT_FOUND budget"],
    [
      "no subject",
      (c) => c.grantBudget({ key: "k", budget: "agent-calls", value: 1n, reason: "x" }),
      "SUBJECT_INVALID subject",
    ],
    ["a file of another", (c) => c.applyBudgets({ yaml: yaml(1, "other"), reason: "x" }), "BUDGETS_INVALID yaml"],
    ["a file that is none", (c) => c.applyBudgets({ yaml: "budgets: [", reason: "x" }), "BUDGETS_INVALID yaml"],
    ["a statement by moon", (c) => c.getStatement({ by: ["moon"] }), "FIELD_INVALID by"],
    ["a statement of no day", (c) => c.getStatement({ from: "2026-02-30" }), "FIELD_INVALID from"],
    ["a statement backwards", (c) => c.getStatement({ from: "2026-02-02", to: "2026-02-01" }), "FIELD_INVALID from"],
  ];
  it.each(wrong)("%s", async (_name, ask, expected) => {
    await using ledger = await start();
    const before = await ledger.as(OPERATOR).listBudgets({});
    const { reason, field } = await refusalOf(ask(ledger.as(OPERATOR)));
    expect(`${reason} ${field}`).toBe(expected);
    expect(await ledger.as(OPERATOR).listBudgets({})).toEqual(before);
  });

  it("reviewers and agents change nothing", async () => {
    await using ledger = await start();
    for (const caller of [AGENT, { ...OPERATOR, roles: ["reviewer"] } as const]) {
      const refusal = await refusalOf(ledger.as(caller).freezeBudget({ key: "k", selector: "tenant", reason: "x" }));
      expect(refusal).toMatchObject({ code: "PERMISSION_DENIED", reason: "OPERATOR_ONLY" });
    }
  });
});

describe("reading", () => {
  const spend = async (
    client: Client<typeof LedgerService>,
    id: string,
    agent: string,
    used: bigint,
    estimate = 10n,
  ) => {
    const of = { ...reserve(id, estimate), principal: { ...principal, agent } };
    await client.reserve({ ...of, expireTime: timestampFromMs(nowMs + 60_000) });
    await client.commit({ ...ref(id), amounts: amounts(used) });
  };

  it("a statement adds up what was estimated and what it was, by what is asked for", async () => {
    await using ledger = await start([ruleOf("all", { limit: 1000n })]);
    await spend(ledger.client, "r1", "a1", 4n);
    await spend(ledger.client, "r2", "a2", 30n);
    nowMs += 86_400_000;
    await spend(ledger.client, "r3", "a1", 10n);
    const operator = ledger.as(OPERATOR);
    const text = async (request: Parameters<typeof operator.getStatement>[0]) => {
      const { lines } = await operator.getStatement({ unit: "usd_micros", ...request });
      return lines.map((line) => `${line.of.join(" ")}: ${line.commits} ${line.estimated} ${line.actual}`);
    };
    expect(await text({ by: ["day", "agent"] })).toEqual([
      "2026-01-01 a1: 1 10 4",
      "2026-01-01 a2: 1 10 30",
      "2026-01-02 a1: 1 10 10",
    ]);
    expect(await text({})).toEqual([": 3 30 44"]);
    expect(await text({ by: ["tool"], to: "2026-01-01" })).toEqual(["report.summarise: 2 20 34"]);
    expect(await text({ by: ["agent"], top: 1 })).toEqual(["a2: 1 10 30"]);
  });

  it("signals are told in order, to who watches from the beginning and to who watches from now on", async () => {
    await using ledger = await start([ruleOf("all", { limit: 100n })]);
    await spend(ledger.client, "r1", "a1", 60n, 60n);
    await spend(ledger.client, "r2", "a1", 25n, 25n);
    const stop = new AbortController();
    const seen: string[] = [];
    const following = (async () => {
      for await (const signal of ledger.as(OPERATOR).watchSignals({}, { signal: stop.signal })) {
        seen.push(
          `${signal.kind} ${signal.budget} ${signal.subject} ${signal.percent || signal.over} ${signal.reservationId}`,
        );
      }
    })().catch(() => {});
    await spend(ledger.client, "r3", "a1", 90n, 10n);
    await vi.waitFor(() => expect(seen).toHaveLength(4), { timeout: 10_000 });
    stop.abort();
    await following;
    expect(seen).toEqual([
      "threshold all shop 50 r1",
      "threshold all shop 80 r2",
      "overrun all shop 75 r3",
      "threshold all shop 100 r3",
    ]);
  });
});

it("a journal that does not answer is UNAVAILABLE, and worth another try", async () => {
  await using journal = openSqliteJournal({ path, synchronous: "normal", readOnly: false });
  const dead = new Proxy(journal, {
    get: (target, key) => {
      if (key === "append") return () => Promise.reject(new JournalUnavailable("gone"));
      const value: unknown = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const options = { journal: dead, budgets: budgetsOf([]), now: () => nowMs, log: silentLog };
  await using ledger = await startLedger(options);
  const client = localClient<typeof LedgerService>(service(LedgerService, ledger.handlers), { caller: BROKER });
  // The executor is patient with its journal; the test is not.
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  try {
    const refusal = refusalOf(client.reserve(reserve("r1")));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(await refusal).toMatchObject({ code: "UNAVAILABLE", reason: "JOURNAL_UNAVAILABLE" });
    expect((await refusal).retryAfterMs).toBeGreaterThan(0);
  } finally {
    vi.useRealTimers();
  }
});
