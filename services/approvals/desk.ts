import { Executor, type WaitOptions } from "../shared/executor.ts";
import type { Journal } from "../shared/journal/journal.ts";
import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Approval, Bound, Event, NewApproval, Ref } from "./approval.ts";
import { type Card, cardOf } from "./card.ts";
import type { Command, Once, Refusal } from "./commands.ts";
import { decider } from "./decider.ts";
import type { Person, Reviewer } from "./eligibility.ts";
import { Expiry } from "./expiry.ts";
import { Feed } from "./feed.ts";
import { covers } from "./grants.ts";
import type { People } from "./people.ts";
import { toRpcError } from "./refusals.ts";
import { earliestExpiry, findApproval, type State } from "./state.ts";
import { rateOf } from "./stats.ts";
import { watchResolutions } from "./watch.ts";

/** Asks the broker whether a parked call could run with these arguments. @throws RpcError saying why not. */
export type CheckEdit = (
  tenant: string,
  ref: Ref,
  argumentsJson: string,
) => Promise<{ readonly argumentsJson: string; readonly argumentsHash: string }>;

export type DeskOptions = {
  readonly journal: Journal;
  readonly people: People;
  readonly checkEdit: CheckEdit;
  readonly now: () => number;
  readonly newId: () => string;
  readonly log: Log;
};

/** Who answers what, by whatever way they came. */
export type Answering = {
  readonly tenant: string;
  readonly person: Person;
  readonly approvalId: string;
  /** The proof that this answer came with, where it may count only once. */
  readonly once?: Once;
  readonly wait?: WaitOptions;
};

export type Consent = {
  readonly argumentsHash: string;
  readonly comment: string;
  readonly calls: number;
  /** Empty: as asked. */
  readonly editedArgumentsJson: string;
  readonly grant?: { readonly uses: number; readonly untilMs: number; readonly bounds: readonly Bound[] };
};

const PREFIX = "approval.";

/** The approvals of all tenants, and all that can be done to them: the RPCs, the page and Slack come here alike. */
export class Desk implements AsyncDisposable {
  readonly #options: DeskOptions;
  readonly #executor: Executor<State, Command, Event, Refusal>;
  readonly #expiry: Expiry;
  readonly #stopping = new AbortController();
  readonly feed: Feed;

  constructor(options: DeskOptions) {
    const { journal, now, log } = options;
    this.#options = options;
    this.#executor = new Executor({ journal, decider, now });
    this.#expiry = new Expiry({ streams: () => journal.streams(PREFIX), expire: (s) => this.#expire(s), now, log });
    this.feed = new Feed({ journal, prefix: PREFIX, log });
  }

  /** @throws RpcError UNAVAILABLE when the journal does not answer: what is due could not be ended. */
  start(): Promise<void> {
    return this.#expiry.start();
  }

  async tenants(): Promise<string[]> {
    const tenants: string[] = [];
    for await (const stream of this.#options.journal.streams(PREFIX)) tenants.push(stream.slice(PREFIX.length));
    return tenants;
  }

  /** @throws RpcError for what is refused: then nothing has changed. */
  async run(tenant: string, command: Command, wait: WaitOptions = {}): Promise<void> {
    const stream = PREFIX + tenant;
    const decided = await this.#executor.execute(stream, command, wait);
    if (decided.kind === "refused") {
      // The answer came after the time was over but before the timer: the end it met goes on record with it.
      if (decided.refusal.kind === "overdue") await this.#expire(stream);
      throw toRpcError(decided.refusal);
    }
    for (const event of decided.events) this.#note(stream, event);
  }

  /** Runs a command about one approval, and answers with what has become of it. */
  async answer(tenant: string, command: Command, approvalId: string, wait: WaitOptions = {}): Promise<Approval> {
    await this.run(tenant, command, wait);
    return await this.get(tenant, approvalId, wait);
  }

  /** Asks people, unless one of them has said yes ahead and may still answer. */
  async request(approval: NewApproval, wait: WaitOptions = {}): Promise<Approval> {
    const { people, now } = this.#options;
    const { approvalId, principal } = approval.binding;
    const { tenant } = principal;
    const nowMs = now();
    const names = await this.peek(tenant, ({ grants }) =>
      [...grants.values()].filter((grant) => covers(grant, approval, nowMs)).map(({ by }) => by),
    );
    const known = names.flatMap((name) => people.find(tenant, name) ?? []);
    const entries = known.filter(({ roles }) => roles.includes("reviewer"));
    const givers = await Promise.all(entries.map((entry) => this.#reviewer(tenant, entry, nowMs)));
    return await this.answer(tenant, { kind: "request", approval, givers, nowMs }, approvalId, wait);
  }

  async approve(who: Answering, { editedArgumentsJson, ...consent }: Consent): Promise<Approval> {
    const { tenant, approvalId, wait } = who;
    const given = { kind: "approve", approvalId, ...(await this.#given(who)), ...consent } as const;
    if (editedArgumentsJson === "") return await this.answer(tenant, given, approvalId, wait);
    const { binding } = await this.get(tenant, approvalId, wait);
    const checked = await this.#options.checkEdit(tenant, binding.ref, editedArgumentsJson);
    const edit = { argumentsJson: checked.argumentsJson, argumentsHash: checked.argumentsHash };
    return await this.answer(tenant, { ...given, edit }, approvalId, wait);
  }

  async reject(who: Answering, comment: string): Promise<Approval> {
    const { tenant, approvalId, wait } = who;
    const given = { kind: "reject", approvalId, ...(await this.#given(who)), comment } as const;
    return await this.answer(tenant, given, approvalId, wait);
  }

  async askBack(who: Answering, text: string): Promise<Approval> {
    const { tenant, approvalId, wait } = who;
    const questionId = this.#options.newId();
    const given = { kind: "ask", approvalId, questionId, ...(await this.#given(who)), text } as const;
    return await this.answer(tenant, given, approvalId, wait);
  }

  async get(tenant: string, approvalId: string, wait: WaitOptions = {}): Promise<Approval> {
    const approval = await this.read(tenant, (state) => findApproval(state, approvalId), wait);
    if (approval === undefined) throw toRpcError({ kind: "not found", approvalId });
    return approval;
  }

  async card(tenant: string, approval: Approval): Promise<Card> {
    const nowMs = this.#options.now();
    const rates = await this.peek(
      tenant,
      (state) => new Map(approval.votes.map(({ reviewer }) => [reviewer, rateOf(state, reviewer, nowMs)])),
    );
    return cardOf(approval, nowMs, rates);
  }

  read<T>(tenant: string, look: (state: State) => T, wait: WaitOptions = {}): Promise<T> {
    return this.#executor.read(PREFIX + tenant, look, wait);
  }

  /** Perhaps a little old: for what is only shown. */
  peek<T>(tenant: string, look: (state: State) => T): Promise<T> {
    return this.#executor.peek(PREFIX + tenant, look);
  }

  watch(after: number, caller: AbortSignal): ReturnType<typeof watchResolutions> {
    const { journal } = this.#options;
    return watchResolutions(after, { journal, prefix: PREFIX, caller, stopping: this.#stopping.signal });
  }

  /** The person as they are now, with those in whose place they may answer. */
  async #given({ tenant, person, once }: Answering) {
    const nowMs = this.#options.now();
    const reviewer = await this.#reviewer(tenant, person, nowMs);
    return { reviewer, nowMs, ...(once === undefined ? {} : { once }) };
  }

  async #reviewer(tenant: string, person: Person, nowMs: number): Promise<Reviewer> {
    const { people } = this.#options;
    const lent = await this.read(tenant, (state) =>
      [...state.absences.values()].filter((one) => one.standIn === person.name && one.untilMs > nowMs),
    );
    const standsFor = lent.flatMap(({ reviewer }) => people.find(tenant, reviewer) ?? []);
    const groups = people.find(tenant, person.name)?.groups ?? person.groups;
    return { name: person.name, groups, standsFor };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.feed[Symbol.asyncDispose]();
    await this.#expiry[Symbol.asyncDispose]();
    await this.#executor[Symbol.asyncDispose]();
  }

  async #expire(stream: string): Promise<number | undefined> {
    for (;;) {
      const nowMs = this.#options.now();
      const earliest = await this.#executor.read(stream, earliestExpiry);
      if (earliest === undefined || earliest > nowMs) return earliest;
      const decided = await this.#executor.execute(stream, { kind: "expire", nowMs });
      if (decided.kind === "accepted") for (const event of decided.events) this.#note(stream, event);
    }
  }

  #note(stream: string, event: Event): void {
    const { log } = this.#options;
    switch (event.kind) {
      case "requested": {
        const { approvalId, tool, need } = event.approval.binding;
        this.#expiry.note(stream, event.approval.expiresAtMs);
        log.info({ stream, approvalId, tool, groups: need.groups, quorum: need.quorum }, "approval.requested");
        return;
      }
      case "voted": {
        const { reviewer, as, approve, hasty } = event.vote;
        log.info({ stream, approvalId: event.approvalId, reviewer, as, approve, hasty }, "approval.voted");
        return;
      }
      case "resolved": {
        const { end, by, grantId } = event.ending;
        log.info({ stream, approvalId: event.binding.approvalId, end, by, grantId }, "approval.resolved");
        return;
      }
      case "granted": {
        const { grantId, by, uses, untilMs } = event.grant;
        log.info({ stream, grantId, by, uses, until: new Date(untilMs).toISOString() }, "grant.given");
        return;
      }
      case "revoked":
        log.info({ stream, grantId: event.grantId, by: event.by }, "grant.revoked");
        return;
      case "joined":
      case "edited":
      case "asked":
      case "answered":
        log.info({ stream, approvalId: event.approvalId }, `approval.${event.kind}`);
        return;
      case "absent":
      case "claimed":
      case "told":
        return;
    }
  }
}

export function noEdits(): Promise<never> {
  return Promise.reject(
    new RpcError({
      code: "UNAVAILABLE",
      reason: "BROKER_UNAVAILABLE",
      message:
        "The broker does not answer, so changed arguments cannot be checked. Approve or reject as asked, or try again.",
      retryAfterMs: 1_000,
    }),
  );
}
