import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Approval, Told } from "./approval.ts";
import { riskOf } from "./card.ts";
import { Busy, type Channel, type Message } from "./channel.ts";
import type { Desk } from "./desk.ts";
import { standingOf } from "./eligibility.ts";
import { changedBy } from "./feed.ts";
import type { People } from "./people.ts";
import { findApproval } from "./state.ts";

/**
 * Tells people, and keeps what it told up to date: compares what each channel shows with what is so, and brings it there.
 *
 * It works from the state, never from a queue of its own: what an outage, a crash or a restart left undone is still to
 * be done when it looks again. Of two replicas that are about to tell the same, the journal lets one go on.
 */
export type TellerOptions = {
  readonly desk: Desk;
  readonly people: People;
  readonly channels: readonly Channel[];
  readonly linkTo: (approval: Approval) => string;
  /** After so long without an end, and again each time: at most MAX_REMINDERS. 0: never. */
  readonly remindMs: number;
  readonly now: () => number;
  readonly log: Log;
};

const LOOK_MS = 1_000;
/** Everything is looked through again: what another replica began and did not finish is found so. */
const SWEEP_MS = 30_000;
/** How long whoever began to tell something is left to finish. */
const LEASE_MS = 20_000;
const MAX_REMINDERS = 3;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

type Pause = { readonly untilMs: number; readonly lastMs: number };

export class Teller implements AsyncDisposable {
  readonly #options: TellerOptions;
  /** By tenant: what may be shown wrongly. */
  readonly #dirty = new Map<string, Set<string>>();
  readonly #pauses = new Map<string, Pause>();
  /** What this process has begun to tell, by channel and approval: when. It need not wait for itself. */
  readonly #begun = new Map<string, number>();
  readonly #unlisten: () => void;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #sweptAtMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor(options: TellerOptions) {
    this.#options = options;
    this.#unlisten = options.desk.feed.listen(({ tenant, event }) => {
      const id = changedBy(event);
      if (id === undefined) return;
      this.#note(tenant, id);
      this.#wake(0);
    });
    this.#wake(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    this.#unlisten();
    clearTimeout(this.#timer);
    await this.#running;
  }

  #note(tenant: string, approvalId: string): void {
    if (!this.#options.channels.some((channel) => channel.tenant === tenant)) return;
    const known = this.#dirty.get(tenant);
    if (known === undefined) this.#dirty.set(tenant, new Set([approvalId]));
    else known.add(approvalId);
  }

  #wake(ms: number): void {
    if (this.#stopped || (ms === 0 && this.#running !== undefined)) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#running = this.#look()
        .catch((error: unknown) => this.#options.log.warn({ err: error }, "teller.failed"))
        .then(() => {
          this.#running = undefined;
          this.#wake(LOOK_MS);
        });
    }, ms);
    this.#timer.unref();
  }

  async #look(): Promise<void> {
    if (performance.now() - this.#sweptAtMs >= SWEEP_MS) {
      await this.#sweep();
      this.#sweptAtMs = performance.now();
    }
    await Promise.all(this.#options.channels.map((channel) => this.#serve(channel)));
    for (const [tenant, ids] of this.#dirty) {
      for (const id of ids) if (!(await this.#isOpen(tenant, id))) ids.delete(id);
    }
  }

  /** All that waits, and all that was told and may not show its end. */
  async #sweep(): Promise<void> {
    const { desk, channels } = this.#options;
    for (const tenant of new Set(channels.map((channel) => channel.tenant))) {
      const ids = await desk.read(tenant, (state) => {
        const ended = [...state.told.keys()].filter((id) => state.ended.has(id));
        return [...state.pending.keys(), ...ended];
      });
      for (const id of ids) this.#note(tenant, id);
    }
  }

  async #serve(channel: Channel): Promise<void> {
    const ids = [...(this.#dirty.get(channel.tenant) ?? [])];
    const together: string[] = [];
    for (const id of ids) {
      if (this.#stopped || this.#isPaused(channel)) return;
      await this.#within(channel, async () => {
        const due = await this.#dueOf(channel, id);
        if (due?.kind === "digest") together.push(id);
        else if (due !== undefined) await this.#bring(channel, due);
      });
    }
    if (together.length > 0) await this.#within(channel, () => this.#tellTogether(channel, together));
  }

  /** What fails leaves the channel alone for a while, longer each time in a row. Nothing is lost: it stays to be done. */
  async #within(channel: Channel, work: () => Promise<void>): Promise<void> {
    try {
      await work();
      this.#pauses.delete(channel.name);
    } catch (thrown) {
      if (RpcError.from(thrown).reason === "TOLD_ALREADY") return;
      const last = this.#pauses.get(channel.name)?.lastMs ?? FIRST_PAUSE_MS / 2;
      const pauseMs = thrown instanceof Busy ? thrown.retryAfterMs : Math.min(last * 2, LONGEST_PAUSE_MS);
      this.#pauses.set(channel.name, { untilMs: performance.now() + pauseMs, lastMs: pauseMs });
      this.#options.log.warn({ err: thrown, channel: channel.name, pauseMs }, "channel.failed");
    }
  }

  #isPaused({ name }: Channel): boolean {
    return performance.now() < (this.#pauses.get(name)?.untilMs ?? 0);
  }

  async #dueOf(channel: Channel, id: string): Promise<Due | undefined> {
    const { desk, now } = this.#options;
    const found = await desk.peek(channel.tenant, (state) => {
      const approval = findApproval(state, id);
      return approval && { approval, told: state.told.get(approval.binding.approvalId)?.get(channel.name) };
    });
    if (found === undefined) return undefined;
    const { approval, told } = found;
    const isOwn =
      told?.address === "" && this.#begun.get(`${channel.name} ${approval.binding.approvalId}`) === told.timeMs;
    if (isOwn) return { kind: "tell", approval, told };
    return dueOf(channel, approval, told, { nowMs: now(), remindMs: this.#options.remindMs });
  }

  async #isOpen(tenant: string, id: string): Promise<boolean> {
    const channels = this.#options.channels.filter((channel) => channel.tenant === tenant);
    for (const channel of channels) {
      if ((await this.#dueOf(channel, id)) !== undefined) return true;
    }
    // What waits is looked at again: a reminder or the next group may come due.
    return await this.#options.desk.peek(tenant, (state) => state.pending.has(id));
  }

  async #bring(channel: Channel, due: Exclude<Due, { kind: "digest" }>): Promise<void> {
    const { approval, told } = due;
    const { now } = this.#options;
    if (due.kind === "tell" && told === undefined) {
      const claim: Told = { address: "", shows: 0, reminders: 0, timeMs: now() };
      await this.#record(channel, approval, undefined, claim);
      await this.#finish(channel, approval, claim, 0);
      return;
    }
    if (due.kind === "tell") {
      const claim: Told = { ...due.told, timeMs: now() } as Told;
      if (claim.address === "") await this.#record(channel, approval, told, claim);
      await this.#finish(channel, approval, claim.address === "" ? claim : (told as Told), claim.reminders);
      return;
    }
    await channel.remind(await this.#message(channel, approval, due.told.address), due.times);
    await this.#record(channel, approval, due.told, { ...due.told, reminders: due.times });
  }

  async #finish(channel: Channel, approval: Approval, was: Told, reminders: number): Promise<void> {
    const address = await channel.tell(await this.#message(channel, approval, was.address));
    const told = { address, shows: approval.version, reminders, timeMs: this.#options.now() };
    await this.#record(channel, approval, was, told);
  }

  async #tellTogether(channel: Channel, ids: readonly string[]): Promise<void> {
    const { desk, now } = this.#options;
    const messages: Message[] = [];
    const claims: { approval: Approval; claim: Told }[] = [];
    for (const id of ids) {
      const approval = await desk.get(channel.tenant, id);
      const claim: Told = { address: "", shows: 0, reminders: 0, timeMs: now() };
      await this.#record(channel, approval, undefined, claim);
      claims.push({ approval, claim });
      messages.push(await this.#message(channel, approval, ""));
    }
    const address = await channel.digest(messages);
    for (const { approval, claim } of claims) {
      await this.#record(channel, approval, claim, { ...claim, address, shows: approval.version });
    }
  }

  async #record(channel: Channel, { binding }: Approval, was: Told | undefined, told: Told): Promise<void> {
    const { approvalId } = binding;
    const key = `${channel.name} ${approvalId}`;
    if (told.address === "") this.#begun.set(key, told.timeMs);
    else this.#begun.delete(key);
    await this.#options.desk.run(channel.tenant, { kind: "tell", approvalId, channel: channel.name, was, told });
  }

  async #message(channel: Channel, approval: Approval, address: string): Promise<Message> {
    const { desk, people, linkTo, now } = this.#options;
    const { need } = approval.binding;
    const nowMs = now();
    const groups =
      need.escalateGroup !== "" && need.escalateAtMs <= nowMs ? [...need.groups, need.escalateGroup] : need.groups;
    const absences = await desk.peek(channel.tenant, (state) => new Map(state.absences));
    const able = people.inGroups(channel.tenant, groups).filter((person) => {
      const isHere = (absences.get(person.name)?.untilMs ?? 0) <= nowMs;
      return (
        isHere &&
        standingOf(approval.binding, { ...person, standsFor: [] }, { absences, nowMs }, []).kind === "eligible"
      );
    });
    const card = await desk.card(channel.tenant, approval);
    return { approval, card, link: linkTo(approval), address, people: able };
  }
}

export type Due =
  | { readonly kind: "tell"; readonly approval: Approval; readonly told: Told | undefined }
  | { readonly kind: "digest" }
  | { readonly kind: "remind"; readonly approval: Approval; readonly told: Told; readonly times: number };

/** Pure: what a channel has to do about an approval now, if anything. */
export function dueOf(
  channel: Pick<Channel, "wants" | "digestMs">,
  approval: Approval,
  told: Told | undefined,
  { nowMs, remindMs }: { readonly nowMs: number; readonly remindMs: number },
): Due | undefined {
  if (told === undefined) {
    if (approval.ending !== undefined || !channel.wants(approval, nowMs)) return undefined;
    if (channel.digestMs === 0 || riskOf(approval) !== "low") return { kind: "tell", approval, told };
    return nowMs - approval.createdAtMs >= channel.digestMs ? { kind: "digest" } : undefined;
  }
  if (told.address === "") return nowMs - told.timeMs >= LEASE_MS ? { kind: "tell", approval, told } : undefined;
  if (told.address.startsWith(DIGEST)) return undefined; // what was told together is not told again
  if (told.shows !== approval.version) return { kind: "tell", approval, told };
  if (approval.ending !== undefined || remindMs === 0) return undefined;
  const times = Math.min(MAX_REMINDERS, Math.floor((nowMs - approval.createdAtMs) / remindMs));
  return times > told.reminders ? { kind: "remind", approval, told, times } : undefined;
}

/** How the address of a message about several approvals begins. */
export const DIGEST = "digest:";
