import { createHash, randomUUID } from "node:crypto";
import type { WebClient } from "@slack/web-api";
import type { Log } from "../../shared/log.ts";
import { RpcError } from "../../shared/rpc/errors.ts";
import type { Desk } from "../desk.ts";
import { type Answer, json, type Request, text } from "../page/http.ts";
import type { Entry, People } from "../people.ts";
import { FIELD, fitsModal, type ModalKind, modal } from "./blocks.ts";
import { type Payload, parsePayload, parseTicket, proofOf, type Ticket, toValue } from "./payload.ts";
import type { WorkspaceOptions } from "./workspace.ts";

/**
 * Slack's interactivity endpoint. In this order, each before the next: the signature over the raw bytes and its age, the
 * payload's form, whose workspace it is, who the person is (by member id, looked up here; names in a payload are
 * claims), and only then what they pressed. Slack hears within three seconds: an answer counts once it is in the
 * journal, which is before the 200; whatever has to be said to Slack is said after it.
 */
export type EndpointOptions = {
  readonly desk: Desk;
  readonly people: People;
  readonly workspaces: readonly { readonly options: WorkspaceOptions; readonly client: WebClient }[];
  readonly now: () => number;
  readonly log: Log;
};

export const PATH = "/slack/interactivity";
/** Of Slack's three seconds. */
const ANSWER_MS = 2_500;
/** A signature is good for five minutes each way; it is remembered for longer than both. */
const REMEMBER_MS = 11 * 60_000;
const MAX_REASON = 2_000;

type Workspace = EndpointOptions["workspaces"][number];
type Press = {
  readonly workspace: Workspace;
  readonly payload: Payload;
  readonly person: Entry;
  readonly once: { readonly key: string; readonly attempt: string; readonly untilMs: number };
  readonly isRetry: boolean;
};

export class Endpoint {
  readonly #options: EndpointOptions;

  constructor(options: EndpointOptions) {
    this.#options = options;
  }

  async handle(request: Request): Promise<Answer | undefined> {
    if (request.url.pathname !== PATH) return undefined;
    if (request.method !== "POST") return text(405, "Use POST.");
    const { now, people } = this.#options;
    const headers = {
      timestamp: headerOf(request, "x-slack-request-timestamp"),
      signature: headerOf(request, "x-slack-signature"),
    };
    const proofs = this.#options.workspaces.map((workspace) => ({
      workspace,
      proof: proofOf(workspace.options.signingSecret, headers, request.body, now()),
    }));
    if (!proofs.some(({ proof }) => proof === "good")) {
      const isStale = proofs.some(({ proof }) => proof === "stale");
      return text(401, isStale ? "This request is too old." : "This request is not signed by a Slack app known here.");
    }
    const payload = parsePayload(request.body);
    if (payload === undefined) return text(400, "This is no payload of Slack's interactivity.");
    const found = proofs.find(({ workspace, proof }) => proof === "good" && isOf(payload, workspace.options));
    if (found === undefined) return text(403, "cross_tenant: this workspace does not answer here.");
    const { workspace } = found;
    const person = people.bySlack(workspace.options.tenant, payload.user.id);
    if (person === undefined || !person.roles.includes("reviewer")) {
      return this.#tellPresser(
        workspace,
        payload,
        "You are not known here as a reviewer. Ask an operator to add your member id.",
      );
    }
    const key = `slack ${createHash("sha256")
      .update(headers.signature ?? "")
      .digest("hex")}`;
    const once = { key, attempt: randomUUID(), untilMs: now() + REMEMBER_MS };
    const isRetry = headerOf(request, "x-slack-retry-num") !== undefined;
    return await this.#press({ workspace, payload, person, once, isRetry });
  }

  async #press(press: Press): Promise<Answer> {
    const { payload } = press;
    switch (payload.type) {
      case "block_actions":
        return await this.#pressed(press, payload);
      case "view_submission":
        return await this.#submitted(press, payload);
    }
  }

  async #pressed(press: Press, payload: Extract<Payload, { type: "block_actions" }>): Promise<Answer> {
    const { workspace } = press;
    const [action] = payload.actions;
    if (action?.action_id === "open") return OK;
    const ticket = parseTicket(action?.value ?? "");
    const known = ["approve", "reject", "edit", "ask"].includes(action?.action_id ?? "");
    if (!known || ticket === undefined) {
      return this.#tellPresser(
        workspace,
        payload,
        "This button is not known here. Nothing was decided; open the page instead.",
      );
    }
    if (action?.action_id !== "approve") {
      const kind = action?.action_id as ModalKind;
      void this.#openModal(press, kind, ticket);
      return OK;
    }
    try {
      await this.#options.desk.approve(this.#who(press, ticket), {
        argumentsHash: ticket.hash,
        calls: ticket.calls,
        ...{ comment: "", editedArgumentsJson: "" },
      });
      return OK;
    } catch (thrown) {
      return this.#refused(press, RpcError.from(thrown), thrown);
    }
  }

  /** A refusal shows in the modal, beside what was written. */
  async #submitted(press: Press, payload: Extract<Payload, { type: "view_submission" }>): Promise<Answer> {
    const { view } = payload;
    const ticket = parseTicket(view.private_metadata);
    const said = view.state.values[FIELD]?.[FIELD]?.value ?? "";
    if (ticket === undefined || !Object.hasOwn(SUBMITS, view.callback_id)) {
      return inModal("This form is not known here. Nothing was decided; open the page instead.");
    }
    const kind = view.callback_id as ModalKind;
    if (kind !== "edit" && said.length > MAX_REASON) return inModal(`Write at most ${MAX_REASON} characters.`);
    if (said.trim() === "") return inModal("Write something.");
    try {
      await SUBMITS[kind](this.#options.desk, this.#who(press, ticket), ticket, said);
      return OK;
    } catch (thrown) {
      const error = RpcError.from(thrown);
      if (error.code === "INTERNAL") this.#options.log.error({ err: thrown }, "slack.fault");
      if (error.reason === "REPLAYED" && press.isRetry) return OK;
      return error.reason === "REPLAYED" ? text(409, error.message) : inModal(sayTo(error));
    }
  }

  #who({ workspace, person, once }: Press, ticket: Ticket) {
    const { tenant } = workspace.options;
    const { name, groups } = person;
    const wait = { deadlineMs: Date.now() + ANSWER_MS };
    return { tenant, person: { name, groups }, approvalId: ticket.id, once, wait };
  }

  #refused(press: Press, error: RpcError, cause: unknown): Answer {
    if (error.code === "INTERNAL") this.#options.log.error({ err: cause }, "slack.fault");
    if (error.reason === "REPLAYED") return press.isRetry ? OK : text(409, error.message);
    // Not on record: Slack shows that it failed, and pressing again does no harm.
    if (error.code === "UNAVAILABLE" || error.code === "DEADLINE_EXCEEDED") return text(503, error.message);
    return this.#tellPresser(press.workspace, press.payload, sayTo(error));
  }

  /** After the 200: Slack gives three seconds for both together. */
  async #openModal({ workspace, payload }: Press, kind: ModalKind, ticket: Ticket): Promise<void> {
    const { desk, log } = this.#options;
    const { tenant } = workspace.options;
    try {
      const approval = await desk.get(tenant, ticket.id);
      if (kind === "edit" && !fitsModal(approval)) {
        this.#tellPresser(workspace, payload, "These arguments are too long to change here; open the page instead.");
        return;
      }
      const view = modal(kind, approval, await desk.card(tenant, approval), toValue(ticket));
      await workspace.client.views.open({ trigger_id: payload.trigger_id ?? "", view });
    } catch (thrown) {
      log.warn({ err: thrown }, "slack.modal_failed");
      const error = RpcError.from(thrown);
      const why =
        error.code === "INTERNAL" || error.code === "UNKNOWN"
          ? "Slack did not open it; press again, or open the page."
          : sayTo(error);
      this.#tellPresser(workspace, payload, why);
    }
  }

  /** Only they see it. It is lost where Slack does not take it, and so is nothing else. */
  #tellPresser({ client }: Workspace, payload: Payload, message: string): Answer {
    if (payload.type === "view_submission") return inModal(message);
    const { channel, user } = payload;
    if (channel !== undefined) {
      client.chat.postEphemeral({ channel: channel.id, user: user.id, text: message }).catch((error: unknown) => {
        this.#options.log.warn({ err: error }, "slack.untold");
      });
    }
    return OK;
  }
}

const SUBMITS = {
  reject: (desk: Desk, who: Parameters<Desk["reject"]>[0], _: Ticket, said: string) => desk.reject(who, said),
  ask: (desk: Desk, who: Parameters<Desk["askBack"]>[0], _: Ticket, said: string) => desk.askBack(who, said),
  edit: (desk: Desk, who: Parameters<Desk["approve"]>[0], { hash, calls }: Ticket, said: string) =>
    desk.approve(who, { argumentsHash: hash, calls, comment: "", editedArgumentsJson: said }),
} as const satisfies Record<ModalKind, unknown>;

const OK: Answer = { status: 200, body: "" };

function inModal(message: string): Answer {
  return json(200, { response_action: "errors", errors: { [FIELD]: message.slice(0, 2_900) } });
}

function sayTo(error: RpcError): string {
  return error.code === "INTERNAL"
    ? "Something went wrong here. Nothing was decided; try again, or open the page."
    : error.message;
}

/** Where an organisation has the app, its people press from any of its workspaces. */
function isOf({ team, enterprise, api_app_id: appId }: Payload, options: WorkspaceOptions): boolean {
  if (options.appId !== undefined && appId !== options.appId) return false;
  if (options.enterprise !== undefined) return enterprise?.id === options.enterprise;
  return team?.id === options.team;
}

function headerOf(request: Request, name: string): string | undefined {
  const value = request.headers[name];
  return typeof value === "string" ? value : undefined;
}
