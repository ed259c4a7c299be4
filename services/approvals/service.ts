import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import type { WaitOptions } from "../shared/executor.ts";
import { parseName } from "../shared/names.ts";
import type { HandlerContext, Handlers } from "../shared/rpc/types.ts";
import { requireReader, requireReviewer, requireService } from "./access.ts";
import type { Card } from "./card.ts";
import { Desk, type DeskOptions } from "./desk.ts";
import { listApprovals } from "./list.ts";
import type { Notice } from "./notice.ts";
import type { State } from "./state.ts";
import { statsOf } from "./stats.ts";
import {
  absenceSchema,
  answerSchema,
  approveSchema,
  askSchema,
  cancelSchema,
  getSchema,
  linkSchema,
  noticeSchema,
  parse,
  parseApproval,
  parsePosition,
  parseState,
  rejectSchema,
  revokeSchema,
  toAbsence,
  toApproval,
  toDuration,
  toGrant,
} from "./wire.ts";

/** Approvals: keeps what people are asked and what they answer, one stream a tenant. It tells nobody to run anything. */

/** Makes a link that logs this person in. @throws RpcError where there is no page. */
export type LoginLink = (
  person: { readonly tenant: string; readonly name: string },
  approvalId: string,
) => { readonly url: string; readonly untilMs: number };

export type ApprovalsOptions = DeskOptions & {
  readonly loginLink: LoginLink;
  /** @throws RpcError when one of those named cannot be told. */
  readonly notice: (notice: Notice) => Promise<void>;
};

export type Approvals = { readonly handlers: Handlers<typeof ApprovalsService>; readonly desk: Desk } & AsyncDisposable;

/** @throws RpcError UNAVAILABLE when the journal does not answer: what is due could not be ended. */
export async function startApprovals(options: ApprovalsOptions): Promise<Approvals> {
  const desk = new Desk(options);
  await desk.start();
  return {
    desk,
    handlers: { ...forServices(desk, options), ...forReaders(desk, options), ...forReviewers(desk, options) },
    [Symbol.asyncDispose]: () => desk[Symbol.asyncDispose](),
  };
}

type All = Handlers<typeof ApprovalsService>;

function forServices(
  desk: Desk,
  { now, notice }: ApprovalsOptions,
): Pick<All, "requestApproval" | "cancelApproval" | "answerQuestion" | "giveNotice" | "watchResolutions"> {
  return {
    requestApproval: async (request, context) => {
      requireService(context.caller);
      const approval = parseApproval(request.approval, now());
      return { approval: toApproval(await desk.request(approval, waitOf(context))) };
    },
    cancelApproval: async (request, context) => {
      const by = requireService(context.caller);
      const { approvalId, reason } = parse(cancelSchema, request);
      const tenant = parseName("tenant", request.tenant);
      const command = { kind: "cancel", approvalId, by, reason, nowMs: now() } as const;
      return { approval: toApproval(await desk.answer(tenant, command, approvalId, waitOf(context))) };
    },
    answerQuestion: async (request, context) => {
      requireService(context.caller);
      const tenant = parseName("tenant", request.tenant);
      const given = parse(answerSchema, request);
      const command = { kind: "answer", ...given, nowMs: now() } as const;
      return { approval: toApproval(await desk.answer(tenant, command, given.approvalId, waitOf(context))) };
    },
    giveNotice: async (request, context) => {
      requireService(context.caller);
      await notice(parse(noticeSchema, request));
      return {};
    },
    async *watchResolutions({ after }, context) {
      requireService(context.caller);
      yield* desk.watch(parsePosition(after), context.signal);
    },
  };
}

function forReaders(
  desk: Desk,
  { now }: ApprovalsOptions,
): Pick<All, "getApproval" | "listApprovals" | "listGrants" | "getStats"> {
  return {
    getApproval: async (request, context) => {
      const tenant = requireReader(context.caller, request.tenant);
      const approval = await desk.get(tenant, parse(getSchema, request).approvalId, waitOf(context));
      return { approval: toApproval(approval), card: toCard(await desk.card(tenant, approval)) };
    },
    listApprovals: async (request, context) => {
      const tenant = requireReader(context.caller, request.tenant);
      const wanted = parseState(request.state);
      const approvals = await desk.read(tenant, (state) => listApprovals(state, wanted), waitOf(context));
      return { approvals: approvals.map(toApproval) };
    },
    listGrants: async (request, context) => {
      const tenant = requireReader(context.caller, request.tenant);
      return { grants: await desk.read(tenant, grantsOf, waitOf(context)) };
    },
    getStats: async (request, context) => {
      const tenant = requireReader(context.caller, request.tenant);
      const nowMs = now();
      return await desk.read(
        tenant,
        (state) => {
          const { rules, reviewers } = statsOf(state, nowMs);
          return {
            pending: state.pending.size,
            rules: rules.map(({ answerP50Ms, answerP90Ms, ...rule }) => ({
              ...rule,
              ...(answerP50Ms === undefined ? {} : { answerP50: toDuration(answerP50Ms) }),
              ...(answerP90Ms === undefined ? {} : { answerP90: toDuration(answerP90Ms) }),
            })),
            reviewers: [...reviewers],
            absences: absencesOf(state, nowMs),
          };
        },
        waitOf(context),
      );
    },
  };
}

function forReviewers(
  desk: Desk,
  { now, loginLink }: ApprovalsOptions,
): Pick<All, "approve" | "reject" | "askBack" | "revokeGrant" | "setAbsence" | "createLoginLink"> {
  return {
    approve: async (request, context) => {
      const { tenant, ...person } = requireReviewer(context.caller, request.tenant);
      const { approvalId, grant, ...consent } = parse(approveSchema, request);
      const terms = grant && { uses: grant.uses, untilMs: now() + grant.duration, bounds: grant.bounds };
      const who = { tenant, person, approvalId, wait: waitOf(context) };
      const given = { ...consent, ...(terms === undefined ? {} : { grant: terms }) };
      return { approval: toApproval(await desk.approve(who, given)) };
    },
    reject: async (request, context) => {
      const { tenant, ...person } = requireReviewer(context.caller, request.tenant);
      const { approvalId, comment } = parse(rejectSchema, request);
      const who = { tenant, person, approvalId, wait: waitOf(context) };
      return { approval: toApproval(await desk.reject(who, comment)) };
    },
    askBack: async (request, context) => {
      const { tenant, ...person } = requireReviewer(context.caller, request.tenant);
      const { approvalId, text } = parse(askSchema, request);
      const who = { tenant, person, approvalId, wait: waitOf(context) };
      return { approval: toApproval(await desk.askBack(who, text)) };
    },
    revokeGrant: async (request, context) => {
      const tenant = requireReader(context.caller, request.tenant);
      const by = context.caller.kind === "person" ? context.caller.name : "";
      const { grantId } = parse(revokeSchema, request);
      await desk.run(tenant, { kind: "revoke", grantId, by, nowMs: now() }, waitOf(context));
      return { grants: await desk.read(tenant, grantsOf, waitOf(context)) };
    },
    setAbsence: async (request, context) => {
      const { tenant, name } = requireReviewer(context.caller, request.tenant);
      const { until, standIn } = parse(absenceSchema, request);
      const nowMs = now();
      const absence = { reviewer: name, untilMs: until ?? nowMs, standIn };
      await desk.run(tenant, { kind: "absent", absence, nowMs }, waitOf(context));
      return { absences: await desk.read(tenant, (state) => absencesOf(state, nowMs), waitOf(context)) };
    },
    createLoginLink: async (request, context) => {
      const { tenant, name } = requireReviewer(context.caller, request.tenant);
      const { approvalId } = parse(linkSchema, request);
      const { url, untilMs } = loginLink({ tenant, name }, approvalId);
      return { url, expireTime: timestampFromMs(untilMs) };
    },
  };
}

function grantsOf({ grants }: State) {
  return [...grants.values()].toReversed().map(toGrant);
}

function absencesOf({ absences }: State, nowMs: number) {
  return [...absences.values()].filter(({ untilMs }) => untilMs > nowMs).map(toAbsence);
}

function toCard({ sentence, args, lines, warnings, risk }: Card) {
  const shown = [...args, ...lines].map(({ label, text, rest, quoted }) => ({
    ...{ label, text, quoted },
    folded: rest.length,
  }));
  return { sentence, lines: shown, warnings: [...warnings], risk };
}

function waitOf({ signal, deadlineMs }: HandlerContext): WaitOptions {
  return deadlineMs === undefined ? { signal } : { signal, deadlineMs };
}
