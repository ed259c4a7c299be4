import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { silentLog } from "../../shared/log.ts";
import { type Confinement, planConfinement } from "./confine.ts";
import { WorkerPool } from "./pool.ts";
import type { WorkerProcess } from "./worker-process.ts";

/** Real workers: who gets which, and when. */

let confinement: Confinement;
beforeAll(async () => {
  confinement = await planConfinement({ jit: false });
});

const opened: WorkerPool[] = [];
afterEach(async () => {
  for (const pool of opened.splice(0)) await pool[Symbol.asyncDispose]();
});

function open(workers: number, warm: number): WorkerPool {
  const pool = new WorkerPool({ confinement, workers, warm, log: silentLog });
  opened.push(pool);
  return pool;
}

const never = new AbortController().signal;
let last = 0;

/** One program, and then the worker is given back. */
async function use(pool: WorkerPool, tenant: string): Promise<WorkerProcess> {
  const worker = await pool.acquire(tenant, never);
  const run = {
    kind: "run",
    run: ++last,
    code: "",
    input: "{}",
    memoryMb: 8,
    outputBytes: 10,
    mayCall: false,
    mayFetch: false,
    asks: 0,
  } as const;
  await worker.send(run, () => {});
  pool.release(worker);
  return worker;
}

function isGone(pid: number | undefined): boolean {
  try {
    process.kill(pid ?? 0, 0);
    return false;
  } catch {
    return true;
  }
}

it("a worker serves its tenant again and again, and never another", async () => {
  const pool = open(3, 0);
  const owners = new Map<number | undefined, string>();
  for (const tenant of ["a", "b", "a", "c", "a", "d", "b", "a", "c", "d"]) {
    const { pid } = await use(pool, tenant);
    expect(owners.get(pid) ?? tenant).toBe(tenant);
    owners.set(pid, tenant);
  }
  const first = await use(pool, "a");
  expect((await use(pool, "a")).pid).toBe(first.pid);
});

it("no worker has two at once", async () => {
  const pool = open(2, 0);
  const one = await pool.acquire("a", never);
  const two = await pool.acquire("a", never);
  expect(one.pid).not.toBe(two.pid);
  let third = false;
  const waits = pool.acquire("a", never).then((worker) => {
    third = true;
    return worker;
  });
  await use(open(1, 0), "a"); // long enough for a worker to start, if one were allowed to
  expect(third).toBe(false);
  pool.release(one);
  expect(await waits).toBeDefined();
});

it("one that is at rest makes room for another tenant, and only one does", async () => {
  const pool = open(3, 0);
  const resting = [await use(pool, "a"), await use(pool, "b"), await use(pool, "c")];
  await Promise.all([use(pool, "d"), pool.acquire("e", AbortSignal.abort()).catch(() => {})]);
  expect(resting.filter((worker) => !worker.isAlive).length).toBe(1);
});

it("one that died at rest is not handed out", async () => {
  const pool = open(2, 0);
  const worker = await use(pool, "a");
  worker.kill("the test says so");
  const next = await use(pool, "a");
  expect(next.pid).not.toBe(worker.pid);
});

it("a worker is replaced once it has run its share", { timeout: 60_000 }, async () => {
  const pool = open(1, 0);
  const pids = new Set<number | undefined>();
  for (let i = 0; i < 201; i++) pids.add((await use(pool, "a")).pid);
  expect(pids.size).toBe(2);
});

describe("who waits", () => {
  it("is served first come, first served among its own tenant, and everybody is", async () => {
    const pool = open(1, 0);
    const order: string[] = [];
    const turn = async (tenant: string, i: number): Promise<void> => {
      await use(pool, tenant);
      order.push(`${tenant}${i}`);
    };
    await Promise.all(["a", "b", "a", "c"].map(turn));
    expect(order.filter((each) => each.startsWith("a"))).toEqual(["a0", "a2"]);
    expect(new Set(order)).toEqual(new Set(["a0", "a2", "b1", "c3"]));
  });

  it("is not kept waiting by a tenant that always has more to do", async () => {
    const pool = open(1, 0);
    let served = false;
    const busy = async (): Promise<void> => {
      while (!served) await use(pool, "a");
    };
    const flood = Promise.all([busy(), busy(), busy()]);
    await use(pool, "a");
    await use(pool, "b");
    served = true;
    await flood;
  });

  it("and may wait for others leaves the last places to what it waits for", async () => {
    const pool = open(3, 0);
    const held = await pool.acquire("a", never, 2);
    const second = pool.acquire("a", never, 2);
    const deeper = await pool.acquire("a", never, 1);
    await use(pool, "a");
    const state = await Promise.race([second.then(() => "begun"), Promise.resolve("waits")]);
    expect(state).toBe("waits");
    pool.release(deeper);
    pool.release(held);
    pool.release(await second);
  });

  it("may give up, and is then no longer served", async () => {
    const pool = open(1, 0);
    const held = await pool.acquire("a", never);
    const stop = new AbortController();
    const waits = pool.acquire("b", stop.signal);
    stop.abort(new Error("enough"));
    await expect(waits).rejects.toThrow("enough");
    pool.release(held);
    expect((await use(pool, "c")).tenant).toBe("c");
    await expect(pool.acquire("d", AbortSignal.abort())).rejects.toThrow();
  });

  it("is told when the pool closes, as is who comes later; and all workers are gone then", async () => {
    const pool = open(1, 0);
    const held = await pool.acquire("a", never);
    const waits = pool.acquire("b", never);
    const told = expect(waits).rejects.toThrow("the runner stops");
    await pool[Symbol.asyncDispose]();
    await told;
    await expect(pool.acquire("c", never)).rejects.toThrow("the runner stops");
    expect(isGone(held.pid)).toBe(true);
  });
});

describe("workers that cannot start", () => {
  let failing: WorkerPool;
  const errors: unknown[] = [];
  beforeAll(() => {
    const log = { ...silentLog, error: (fields: unknown) => void errors.push(fields) } as typeof silentLog;
    const broken = {
      ...confinement,
      argv: [process.execPath, "--eval", "process.exit(7)"],
      filter: undefined,
    } as const;
    failing = new WorkerPool({ confinement: broken, workers: 4, warm: 1, log });
  });
  afterAll(() => failing[Symbol.asyncDispose]());

  it("are logged, and hold nobody longer than they wait", async () => {
    await expect(failing.acquire("a", AbortSignal.timeout(800))).rejects.toThrow();
    expect(errors).toContainEqual({ why: "it ended by itself (exit code 7)" });
    expect(errors.length).toBeLessThan(12);
  });
});
