import { RpcError } from "../../shared/rpc/errors.ts";
import type { RunSpec } from "../backend.ts";
import type { Sandbox } from "./sandbox.ts";

export type SessionLife = { readonly idleMs: number; readonly ttlMs: number };

/** A session's sandbox and how it is doing. */
type Held = {
  readonly sandbox: Promise<Sandbox>;
  readonly life: SessionLife;
  /** The calls in it, one after another. */
  last: Promise<unknown>;
  users: number;
  paused: boolean;
  idle: NodeJS.Timeout | undefined;
  readonly ttl: NodeJS.Timeout;
  readonly done: () => void;
};

const MAX_SESSIONS = 64;

/**
 * Sandboxes that live as long as an agent's session: one for each principal and kind. Calls in one follow each other;
 * each has the way out that its own permit grants, and between calls there is none.
 */
export class Sessions implements AsyncDisposable {
  readonly #held = new Map<string, Held>();

  get size(): number {
    return this.#held.size;
  }

  /** Runs `use` in the session's sandbox, made by `make` where there is none. @throws what these throw. */
  async use<T>(
    key: string,
    life: SessionLife,
    make: () => Promise<{ readonly sandbox: Sandbox; readonly done: () => void }>,
    signal: AbortSignal,
    use: (sandbox: Sandbox) => Promise<T>,
  ): Promise<T> {
    const held = this.#held.get(key) ?? this.#open(key, life, make);
    held.users++;
    clearTimeout(held.idle);
    const before = held.last;
    const turn = Promise.withResolvers<void>();
    held.last = before.then(() => turn.promise);
    try {
      const sandbox = await held.sandbox;
      await Promise.race([before, aborted(signal)]); // `use` sees for itself that it was called off
      if (held.paused) await this.#setPaused(held, sandbox, false);
      return await use(sandbox);
    } finally {
      turn.resolve();
      this.#rest(key, held);
    }
  }

  /** False when there is none. It stands still until somebody uses it. */
  async pause(key: string, paused: boolean): Promise<boolean> {
    const held = this.#held.get(key);
    if (held === undefined) return false;
    await held.last;
    await this.#setPaused(held, await held.sandbox, paused);
    return true;
  }

  async close(key: string): Promise<boolean> {
    const held = this.#held.get(key);
    if (held === undefined) return false;
    this.#held.delete(key);
    clearTimeout(held.idle);
    clearTimeout(held.ttl);
    const sandbox = await held.sandbox.catch(() => undefined);
    await sandbox?.[Symbol.asyncDispose]();
    held.done();
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#held.keys()].map((key) => this.close(key)));
  }

  #open(key: string, life: SessionLife, make: () => Promise<{ sandbox: Sandbox; done: () => void }>): Held {
    if (this.#held.size >= MAX_SESSIONS) {
      const message = `The runner keeps ${MAX_SESSIONS} sessions' sandboxes at once; close one, or try again later.`;
      throw new RpcError({ code: "RESOURCE_EXHAUSTED", reason: "TOO_MANY_SESSIONS", message, retryAfterMs: 5_000 });
    }
    const made = make();
    const sandbox = made.then((each) => each.sandbox);
    const ttl = setTimeout(() => void this.close(key), life.ttlMs);
    const idle = undefined;
    const done = (): void => void made.then((each) => each.done()).catch(() => {});
    const held: Held = { sandbox, life, last: Promise.resolve(), users: 0, paused: false, idle, ttl, done };
    this.#held.set(key, held);
    const forget = (): void => {
      if (this.#held.get(key) === held) void this.close(key);
    };
    sandbox.then(({ gone }) => gone.then(forget), forget);
    return held;
  }

  #rest(key: string, held: Held): void {
    held.users--;
    if (held.users > 0 || this.#held.get(key) !== held) return;
    held.idle = setTimeout(() => void this.close(key), held.life.idleMs);
  }

  async #setPaused(held: Held, sandbox: Sandbox, paused: boolean): Promise<void> {
    if (held.paused === paused) return;
    await (paused ? sandbox.pause() : sandbox.resume());
    held.paused = paused;
  }
}

function aborted(signal: AbortSignal): Promise<unknown> {
  return new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** Whose it is, in full: nobody else's call can meet it. */
export function sessionKey({ tenant, agent, session, user }: RunSpec, kindKey: string): string {
  return JSON.stringify([tenant, agent, session, user, kindKey]);
}
