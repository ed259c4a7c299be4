import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { silentLog } from "../../shared/log.ts";
import { type Pooled, WarmPool } from "./pool.ts";

class Fake implements Pooled {
  readonly kind: string;
  readonly #gone = Promise.withResolvers<void>();
  alive = true;
  disposed = 0;
  constructor(kind: string) {
    this.kind = kind;
  }
  get gone(): Promise<void> {
    return this.#gone.promise;
  }
  die(): void {
    this.alive = false;
    this.#gone.resolve();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.disposed++;
    this.die();
  }
}

function openPool(maxIdle: number, make?: (kind: string) => Promise<Fake>) {
  const made: Fake[] = [];
  let atOnce = 0;
  let mostAtOnce = 0;
  const pool = new WarmPool<string, Fake>({
    ...{ maxIdle, log: silentLog, keyOf: (kind) => kind },
    make: async (kind) => {
      mostAtOnce = Math.max(mostAtOnce, ++atOnce);
      try {
        await turn();
        const fake = await (make?.(kind) ?? new Fake(kind));
        made.push(fake);
        return fake;
      } finally {
        atOnce--;
      }
    },
  });
  return { pool, made, mostAtOnce: () => mostAtOnce };
}

describe("a pool", () => {
  it("gives each sandbox once, and has another ready after", async () => {
    const { pool, made } = openPool(4);
    await using _ = pool;
    const seen = new Set<Fake>();
    for (let i = 0; i < 5; i++) {
      seen.add(await pool.claim("a"));
      pool.done("a");
      await pool.settled();
    }
    expect(seen.size).toBe(5);
    expect(pool.state()).toMatchObject({ idle: 1, making: 0, claimed: 4, missed: 1 });
    expect(made.length).toBe(6);
  });

  it("keeps as many ready as were in use at once, within its bound", async () => {
    const { pool } = openPool(6);
    await using _ = pool;
    await Promise.all(Array.from({ length: 4 }, () => pool.claim("a")));
    await pool.settled();
    expect(pool.state().idle).toBe(4);
    await Promise.all(Array.from({ length: 8 }, () => pool.claim("b")));
    await pool.settled();
    expect(pool.state().idle).toBe(6);
  });

  it("makes one at a time to refill, and none while a call waits for its own", async () => {
    const gates: (() => void)[] = [];
    const { pool, made } = openPool(2, async (kind) => {
      await new Promise<void>((resolve) => gates.push(resolve));
      return new Fake(kind);
    });
    const claims = [pool.claim("a"), pool.claim("a"), pool.claim("b")];
    while (gates.length < 3) await turn();
    gates.shift()?.();
    await claims[0];
    await turn();
    expect(pool.state().making).toBe(0); // two still wait
    for (const open of gates.splice(0)) open();
    await Promise.all(claims);
    while (gates.length < 1) await turn();
    expect(pool.state().making).toBe(1);
    const opening = setInterval(() => gates.shift()?.(), 1);
    await pool.settled();
    clearInterval(opening);
    expect(made.length).toBe(5);
    await pool[Symbol.asyncDispose]();
  });
});

describe("a pool in trouble", () => {
  it("gives none that has died while it waited, and replaces it", async () => {
    const { pool, made } = openPool(2);
    await using _ = pool;
    await pool.claim("a");
    await pool.settled();
    made[1]?.die();
    await turn();
    await pool.settled();
    expect(pool.state().idle).toBe(1);
    expect(made[1]?.disposed).toBe(1);
    expect((await pool.claim("a")).alive).toBe(true);
  });

  it("fails the call that it cannot make one for, and goes on", async () => {
    let failing = true;
    const { pool } = openPool(2, async (kind) => {
      if (failing) throw new Error("no engine");
      return new Fake(kind);
    });
    await using _ = pool;
    await expect(pool.claim("a")).rejects.toThrow("no engine");
    failing = false;
    expect((await pool.claim("a")).kind).toBe("a");
    pool.done("a");
    expect(pool.state().missed).toBe(2);
  });

  it("destroys what is ready when it is disposed, twice too, and keeps none when its bound is 0", async () => {
    const { pool, made } = openPool(3);
    await pool.claim("a");
    await pool.settled();
    await pool[Symbol.asyncDispose]();
    await pool[Symbol.asyncDispose]();
    expect(made.map(({ disposed }) => disposed)).toEqual([0, 1]);
    const none = openPool(0);
    await none.pool.claim("a");
    await none.pool.settled();
    expect(none.made.length).toBe(1);
    await none.pool[Symbol.asyncDispose]();
  });
});
