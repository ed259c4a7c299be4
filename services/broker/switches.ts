import { Executor } from "../shared/executor.ts";
import type { Journal } from "../shared/journal/journal.ts";
import type { Log } from "../shared/log.ts";
import { NAME, TOOL_NAME } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller } from "../shared/rpc/types.ts";
import {
  CONTROL_STREAM,
  type ControlCommand,
  type ControlEvent,
  type ControlState,
  controlDecider,
  type KillSwitch,
} from "./control.ts";
import { pause } from "./outbox.ts";

type Person = Extract<Caller, { kind: "person" }>;

/** The kill switches as they are now, on every broker: the record is followed, so no call has to ask. */
export class Switches implements AsyncDisposable {
  readonly #journal: Journal;
  readonly #executor: Executor<ControlState, ControlCommand, ControlEvent, never>;
  readonly #now: () => number;
  readonly #log: Log;
  readonly #stop = new AbortController();
  readonly #onChange: () => void;
  #state: ControlState = new Map();
  #following: Promise<void> = Promise.resolve();

  private constructor(options: SwitchesOptions) {
    this.#journal = options.journal;
    this.#now = options.now;
    this.#log = options.log;
    this.#onChange = options.onChange;
    this.#executor = new Executor({ journal: options.journal, decider: controlDecider, now: options.now });
  }

  /** Resolves once the switches that are on are known. @throws RpcError when the journal does not answer. */
  static async open(options: SwitchesOptions): Promise<Switches> {
    const switches = new Switches(options);
    await switches.#reload();
    switches.#following = switches.#follow();
    return switches;
  }

  get state(): ControlState {
    return this.#state;
  }

  /** @throws RpcError naming the field. */
  async set(person: Person, scope: string, on: boolean, reason: string): Promise<void> {
    const { tenant, name: author } = person;
    const full = fullScope(tenant, scope);
    if (on && (reason.trim() === "" || reason.length > 500)) {
      const message = "Set reason: 1 to 500 characters; callers and the journal are told.";
      throw new RpcError({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field: "reason", message });
    }
    const killSwitch: KillSwitch = { scope: full, reason, author, timeMs: this.#now() };
    const command: ControlCommand = on
      ? { kind: "switch_on", killSwitch }
      : { kind: "switch_off", scope: full, reason, author };
    await this.#executor.execute(CONTROL_STREAM, command);
    await this.#reload();
  }

  /** Those that stop calls of this tenant, as its operators name them. */
  list(tenant: string): KillSwitch[] {
    const prefix = `${tenant}/`;
    return [...this.#state.values()]
      .filter(({ scope }) => scope === "everything" || scope.startsWith(prefix))
      .map((item) => ({ ...item, scope: shownScope(tenant, item.scope) }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#following;
    await this.#executor[Symbol.asyncDispose]();
  }

  async #reload(): Promise<void> {
    this.#state = await this.#executor.read(CONTROL_STREAM, (state) => new Map(state));
    this.#onChange();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        for await (const record of this.#journal.watch(CONTROL_STREAM, 0, signal)) {
          if (record.stream === CONTROL_STREAM) await this.#reload();
        }
      } catch (error) {
        if (!signal.aborted) this.#log.warn({ err: error }, "switches.lost");
      }
      await pause(300, signal);
    }
  }
}

export type SwitchesOptions = {
  readonly journal: Journal;
  readonly now: () => number;
  readonly log: Log;
  readonly onChange: () => void;
};

/** Scopes of the record carry their tenant, so that no operator names another's. */
function fullScope(tenant: string, scope: string): string {
  if (scope === "everything") return scope;
  const [kind = "", name = ""] = scope.split(/:(.*)/s);
  if (kind === "tenant" && name === tenant) return `${tenant}/tenant`;
  if (SCOPES.get(kind)?.test(name)) return `${tenant}/${kind}:${name}`;
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: scope === "" ? "FIELD_MISSING" : "FIELD_INVALID",
    field: "scope",
    message: `Change scope: write everything, tenant:${tenant}, agent:<a>, session:<s> or tool:<name>.`,
  });
}

const SCOPES = new Map([
  ["agent", NAME],
  ["session", NAME],
  ["tool", TOOL_NAME],
]);

function shownScope(tenant: string, scope: string): string {
  if (scope === "everything") return scope;
  const own = scope.slice(tenant.length + 1);
  return own === "tenant" ? `tenant:${tenant}` : own;
}
