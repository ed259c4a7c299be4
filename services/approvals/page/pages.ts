import type { Log } from "../../shared/log.ts";
import { NAME } from "../../shared/names.ts";
import { RpcError } from "../../shared/rpc/errors.ts";
import type { Approval } from "../approval.ts";
import type { Consent, Desk } from "../desk.ts";
import { standingOf } from "../eligibility.ts";
import { isLive } from "../grants.ts";
import { listApprovals } from "../list.ts";
import type { People } from "../people.ts";
import type { State } from "../state.ts";
import { type Answer, formOf, page, type Request, redirect, text } from "./http.ts";
import type { Login, Visitor } from "./login.ts";
import {
  approvalView,
  awayView,
  type Draft,
  type Frame,
  grantsView,
  historyView,
  type Item,
  inboxView,
  problemView,
} from "./views.ts";

export type PagesOptions = {
  readonly desk: Desk;
  readonly people: People;
  readonly login: Login;
  readonly now: () => number;
  readonly log: Log;
};

const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const MAX_COMMENT = 2_000;
const INBOX = 200;
const HISTORY = 200;

/** What the page shows and takes: for who is logged in, of their tenant, by their own forms. */
export class Pages {
  readonly #options: PagesOptions;
  readonly login: Login;

  constructor(options: PagesOptions) {
    this.#options = options;
    this.login = options.login;
  }

  async handle(request: Request): Promise<Answer> {
    const { pathname, searchParams } = request.url;
    const own = await this.login.handle(request);
    if (own !== undefined) return own;
    if (pathname === "/l" && request.method === "GET") {
      const link = this.login.tickets.open(searchParams.get("t") ?? "", "link");
      if (link === undefined) return page(403, problemView("This link is over", "It is forged, or its time is over."));
      return redirect(`/a/${link.ticket.approvalId}`);
    }
    const visitor = this.login.visitor(request);
    if (visitor === undefined) return redirect(`/login?to=${encodeURIComponent(pathname)}`);
    if (!visitor.person.roles.includes("reviewer")) {
      return page(403, problemView("Only reviewers answer", "You are logged in as somebody who does not."));
    }
    if (request.method === "GET") return await this.#show(pathname, visitor);
    if (request.method !== "POST") return text(405, "Use GET or POST.");
    const form = formOf(request);
    if (form === undefined || !this.login.isOwnForm(request, visitor, form.get("token") ?? "")) {
      return page(
        403,
        problemView("Please send it again", "This form was not sent from your own page. Nothing was decided."),
      );
    }
    return await this.#take(pathname, visitor, form);
  }

  async #show(path: string, visitor: Visitor): Promise<Answer> {
    const { desk, now } = this.#options;
    const { tenant } = visitor.person;
    const nowMs = now();
    switch (path) {
      case "/":
        return page(
          200,
          inboxView(
            await this.#items(visitor, (s) => listApprovals(s, "pending").slice(0, INBOX)),
            nowMs,
            await this.#frame(visitor, "/"),
          ),
        );
      case "/history":
        return page(
          200,
          historyView(
            await this.#items(visitor, (s) => [...s.ended.values()].slice(-HISTORY).toReversed()),
            nowMs,
            await this.#frame(visitor, path),
          ),
        );
      case "/grants": {
        const grants = await desk.read(tenant, (state) =>
          [...state.grants.values()].toReversed().map((grant) => ({ ...grant, live: isLive(grant, nowMs) })),
        );
        return page(200, grantsView(grants, nowMs, await this.#frame(visitor, path)));
      }
      case "/away":
        return await this.#away(visitor);
      default: {
        const id = /^\/a\/([^/]+)$/.exec(path)?.[1] ?? "";
        if (ID.test(id)) return await this.#approval(visitor, id);
        return page(404, problemView("There is no such page", "Check the address.", await this.#frame(visitor, path)));
      }
    }
  }

  async #take(path: string, visitor: Visitor, form: URLSearchParams): Promise<Answer> {
    const { desk, now } = this.#options;
    const { tenant, name } = visitor.person;
    const id = /^\/a\/([^/]+)$/.exec(path)?.[1] ?? "";
    try {
      if (ID.test(id)) {
        await this.#answer(visitor, id, form);
        return redirect(form.get("do") === "ask" ? path : "/");
      }
      if (path === "/grants") {
        await desk.run(tenant, { kind: "revoke", grantId: form.get("grant") ?? "", by: name, nowMs: now() });
        return redirect("/grants");
      }
      if (path === "/away") {
        await this.#setAway(visitor, form);
        return redirect("/away");
      }
    } catch (thrown) {
      const error = RpcError.from(thrown);
      if (error.code === "INTERNAL") throw thrown;
      if (ID.test(id)) return await this.#approval(visitor, id, { problem: error.message, form });
      if (path === "/away") return await this.#away(visitor, error.message);
      return page(400, problemView("That did not work", error.message, await this.#frame(visitor, path)));
    }
    return page(404, problemView("There is no such page", "Check the address.", await this.#frame(visitor, path)));
  }

  async #answer(visitor: Visitor, approvalId: string, form: URLSearchParams): Promise<void> {
    const { desk, now } = this.#options;
    const { tenant, name, groups } = visitor.person;
    const who = { tenant, person: { name, groups }, approvalId };
    const comment = bounded("comment", form.get("comment") ?? "");
    const consent: Consent = {
      argumentsHash: form.get("hash") ?? "",
      comment,
      calls: Number(form.get("calls")),
      editedArgumentsJson: "",
    };
    switch (form.get("do")) {
      case "approve":
        await desk.approve(who, consent);
        return;
      case "reject":
        await desk.reject(who, comment);
        return;
      case "edit":
        await desk.approve(who, { ...consent, editedArgumentsJson: form.get("edited") || "{}" });
        return;
      case "grant":
        await desk.approve(who, { ...consent, grant: termsOf(form, now()) });
        return;
      case "ask": {
        const question = bounded("question", form.get("question") ?? "").trim();
        if (question === "") throw invalid("question", "write what you want to know");
        await desk.askBack(who, question);
        return;
      }
      default:
        throw invalid("do", "press one of the buttons");
    }
  }

  async #setAway({ person }: Visitor, form: URLSearchParams): Promise<void> {
    const { desk, people, now } = this.#options;
    const nowMs = now();
    const days = form.get("do") === "back" ? 0 : Number(form.get("days"));
    const standIn = form.get("do") === "back" ? "" : (form.get("standIn") ?? "").trim();
    if (!(days >= 0)) throw invalid("days", "give a number of days");
    if (standIn !== "" && (!NAME.test(standIn) || people.find(person.tenant, standIn) === undefined)) {
      throw invalid("standIn", "name somebody who is known here");
    }
    const absence = { reviewer: person.name, standIn, untilMs: nowMs + Math.round(days * 86_400_000) };
    await desk.run(person.tenant, { kind: "absent", absence, nowMs });
  }

  async #away(visitor: Visitor, problem?: string): Promise<Answer> {
    const nowMs = this.#options.now();
    const absences = await this.#options.desk.read(visitor.person.tenant, (state) =>
      [...state.absences.values()].filter(({ untilMs }) => untilMs > nowMs),
    );
    return page(
      problem === undefined ? 200 : 400,
      awayView(absences, nowMs, await this.#frame(visitor, "/away"), problem),
    );
  }

  async #approval(visitor: Visitor, approvalId: string, draft: Draft = {}): Promise<Answer> {
    const { desk, now } = this.#options;
    const frame = await this.#frame(visitor, "");
    let approval: Approval;
    try {
      approval = await desk.get(visitor.person.tenant, approvalId);
    } catch (error) {
      if (RpcError.from(error).code !== "NOT_FOUND") throw error;
      return page(404, problemView("Not here", RpcError.from(error).message, frame));
    }
    const item = await this.#item(visitor, approval);
    return page(draft.problem === undefined ? 200 : 409, approvalView(item, now(), frame, draft));
  }

  async #items(visitor: Visitor, look: (state: State) => readonly Approval[]): Promise<Item[]> {
    const approvals = await this.#options.desk.read(visitor.person.tenant, look);
    return await Promise.all(approvals.map((approval) => this.#item(visitor, approval)));
  }

  async #item({ person }: Visitor, approval: Approval): Promise<Item> {
    const { desk, people, now } = this.#options;
    const nowMs = now();
    const mine = await desk.peek(person.tenant, ({ absences }) => {
      const standsFor = [...absences.values()].flatMap(({ reviewer }) => people.find(person.tenant, reviewer) ?? []);
      const { kind } = standingOf(approval.binding, { ...person, standsFor }, { absences, nowMs }, []);
      return (
        kind === "eligible" &&
        !approval.votes.some(
          (vote) =>
            vote.reviewer === person.name &&
            vote.argumentsHash === (approval.edit?.argumentsHash ?? approval.binding.argumentsHash),
        )
      );
    });
    return { approval, card: await desk.card(person.tenant, approval), mine };
  }

  async #frame(visitor: Visitor, at: string): Promise<Frame> {
    const waiting = await this.#options.desk.peek(visitor.person.tenant, (state) => state.pending.size);
    return { person: visitor.person, token: visitor.formToken, waiting, at };
  }
}

function termsOf(form: URLSearchParams, nowMs: number) {
  const bounds = [...form].flatMap(([name, value]) =>
    name.startsWith("max-") && value !== "" ? [{ argument: name.slice(4), max: Number(value) }] : [],
  );
  return {
    uses: Number(form.get("uses")),
    untilMs: nowMs + Math.round(Number(form.get("minutes")) * 60_000),
    bounds,
  };
}

function bounded(field: string, value: string): string {
  if (value.length <= MAX_COMMENT) return value;
  throw invalid(field, `write at most ${MAX_COMMENT} characters`);
}

function invalid(field: string, what: string): RpcError {
  return new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "FIELD_INVALID",
    field,
    message: `Change ${field}: ${what}.`,
  });
}
