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
import { type Budget, indexBudgets } from "./budgets.ts";
import { MAX_LISTED, startLedger } from "./service.ts";

const BROKER: Caller = { kind: "service", name: "broker" };
const OPERATOR: Caller = { kind: "person", tenant: "shop", name: "olga", roles: ["operator"], groups: [] };
const AGENT: Caller = { kind: "agent", tenant: "shop", agent: "a1" };
const budget = (of: Pick<Budget, "name" | "scope" | "subject" | "unit" | "limit">): Budget => ({
  tenant: "shop",
  ...of,
});
const BUDGETS = [
  budget({ name: "all-usd", scope: "tenant", subject: "shop", unit: "usd_micros", limit: 50n }),
  budget({ name: "agent-calls", scope: "agent", subject: "*", unit: "calls", limit: 100_000n }),
  budget({ name: "pay", scope: "tool", subject: "payroll.pay", unit: "calls", limit: 7n }),
];
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
  const ledger = await startLedger({ journal, budgets: indexBudgets(budgets), now, log: silentLog });
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
    await ledger.client.commit({ ...ref("r4"), amounts: amounts(1n) });
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
    return bodies.map((body) => (JSON.parse(body) as { kind: string }).kind);
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
        "ask an operator to raise its limit in budgets.yaml.",
      metadata: {
        budget: "all-usd",
        scope: "tenant",
        subject: "shop",
        unit: "usd_micros",
        limit: "50",
        available: "5",
        asked: "10",
      },
    });
  });
});

describe("what is wrong, and where", () => {
  const past = { expireTime: timestampFromMs(START_MS) };
  const later = { expireTime: timestampFromMs(START_MS + 99_000) };
  const wrongTime = { expireTime: { seconds: 1n << 62n, nanos: 0 } };
  type Ask = (client: Client<typeof LedgerService>) => Promise<unknown>;
  const cases: readonly [string, Ask, string][] = [
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
    ["no such time", (c) => c.reserve({ ...reserve("r"), ...wrongTime }), "INVALID_ARGUMENT FIELD_INVALID expire_time"],
    ["a past end", (c) => c.reserve({ ...reserve("r"), ...past }), "INVALID_ARGUMENT EXPIRE_TIME_PASSED expire_time"],
    ["an amount below zero", (c) => c.reserve(reserve("r", -1n)), "INVALID_ARGUMENT AMOUNT_INVALID amounts"],
    [
      "an unknown unit",
      (c) => c.reserve({ ...reserve("r"), amounts: [{ unit: "dollars", value: 1n }] }),
      "INVALID_ARGUMENT AMOUNT_INVALID amounts",
    ],
    ["other amounts", (c) => c.reserve(reserve("held", 2n)), "ALREADY_EXISTS RESERVATION_MISMATCH amounts"],
    ["a used id", (c) => c.reserve(reserve("done", 1n)), "FAILED_PRECONDITION RESERVATION_ENDED reservation_id"],
    ["a late release", (c) => c.release(ref("done")), "FAILED_PRECONDITION RESERVATION_ENDED reservation_id"],
    ["commit of nothing", (c) => c.commit(ref("never")), "NOT_FOUND RESERVATION_NOT_FOUND reservation_id"],
    ["commit without tenant", (c) => c.commit({ reservationId: "r" }), "INVALID_ARGUMENT FIELD_MISSING tenant"],
    [
      "commit past counting",
      (c) => c.commit({ ...ref("held"), amounts: amounts((1n << 63n) - 1n) }),
      "OUT_OF_RANGE AMOUNT_TOO_LARGE amounts",
    ],
    [
      "extend of nothing",
      (c) => c.extend({ ...ref("never"), ...later }),
      "NOT_FOUND RESERVATION_NOT_FOUND reservation_id",
    ],
    ["extend without end", (c) => c.extend(ref("held")), "INVALID_ARGUMENT FIELD_INVALID expire_time"],
    ["a list of no tenant", (c) => c.listBudgets({}), "INVALID_ARGUMENT FIELD_MISSING tenant"],
  ];
  it.each(cases)("%s", async (_name, ask, expected) => {
    await using ledger = await start();
    await ledger.client.reserve(reserve("held", 1n));
    await ledger.client.reserve(reserve("done", 1n));
    await ledger.client.commit({ ...ref("done"), amounts: amounts(1n) });
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
  });

  it("of very many subjects shows those with the least left", async () => {
    await using ledger = await start(BUDGETS.slice(1));
    const agents = Array.from({ length: MAX_LISTED + 1 }, (_, i) => `agent-${i}`);
    await Promise.all(
      agents.map((agent, i) => {
        const calls = [{ unit: "calls", value: BigInt(i) }];
        return ledger.client.reserve({ ...reserve(`r${i}`), principal: { ...principal, agent }, amounts: calls });
      }),
    );
    const { budgets } = await ledger.as(OPERATOR).listBudgets({});
    const subjects = budgets.filter(({ name }) => name === "agent-calls").map(({ subject }) => subject);
    expect(subjects).toEqual(agents.slice(1).reverse());
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
  const options = { journal: dead, budgets: indexBudgets(BUDGETS), now: () => nowMs, log: silentLog };
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
