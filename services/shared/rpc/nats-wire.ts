import { errors, type Msg, type MsgHdrs, type NatsConnection, headers as newHeaders } from "@nats-io/transport-node";
import { z } from "zod";
import { NAME } from "../names.ts";
import { Code, RpcError } from "./errors.ts";
import { fromStatus, statusFromBinary, statusToBinary, toStatus } from "./status.ts";
import type { Caller } from "./types.ts";

/**
 * RPC over NATS: a request on the method's subject, its answers on the caller's own inbox, `<inbox>.<Service>.<call>`.
 *
 *     interlock.rpc.<Service>.<Method>              any replica (queue group)
 *     interlock.rpc.<Service>.<Method>.<instance>   that one
 *     interlock.rpc-up.<Service>.<call>             what follows a request: cancel, credit, more requests, signs of life
 *
 * A unary call is one request and one answer. In a stream every message carries its number, so that a lost one is an
 * error and never a gap; either side sends only as many messages as the other has granted, and each shows that it lives.
 */

export const SUBJECT = {
  method: (service: string, method: string, instance: string | undefined) =>
    `interlock.rpc.${service}.${method}${instance === undefined ? "" : `.${instance}`}`,
  up: (service: string, call: string) => `interlock.rpc-up.${service}.${call}`,
};

/** Messages that one side sends before the other says it has taken some. */
export const WINDOW = 64;
/** Each side of a stream says that it lives, and looks whether the other has said anything since it last looked. */
export const ALIVE_EVERY_MS = 2_000;
/** Looks at silence before the other is gone. Looks rather than a time: a process that was held up for long sees one. */
export const LOST_AFTER_LOOKS = 4;

/** What a message is. A request names its method by its subject. */
export type Frame =
  | { readonly kind: "answer" }
  | { readonly kind: "failure" }
  /** One message of a stream. */
  | { readonly kind: "data"; readonly seq: number }
  /** The end of one direction of a stream, after `seq` messages. */
  | { readonly kind: "end"; readonly seq: number }
  | { readonly kind: "credit"; readonly count: number }
  | { readonly kind: "alive" }
  | { readonly kind: "cancel" };

const KIND = "interlock-frame";
const NUMBER = "interlock-number";

function frameHeaders(frame: Frame): MsgHdrs {
  const headers = newHeaders();
  headers.set(KIND, frame.kind);
  switch (frame.kind) {
    case "data":
    case "end":
      headers.set(NUMBER, String(frame.seq));
      break;
    case "credit":
      headers.set(NUMBER, String(frame.count));
      break;
    case "answer":
    case "failure":
    case "alive":
    case "cancel":
      break;
  }
  return headers;
}

/** NATS itself says that nobody serves the subject. */
export function isUnserved(message: Msg): boolean {
  return headersOf(message)?.code === NO_RESPONDERS;
}

const NO_RESPONDERS = 503;

/** undefined too for what NATS carries but its client cannot read. */
function headersOf(message: Msg): MsgHdrs | undefined {
  try {
    return message.headers;
  } catch {
    return undefined;
  }
}

/** undefined for what is no frame of ours: whoever sent it gets no answer. */
export function parseFrame(message: Msg): Frame | undefined {
  const headers = headersOf(message);
  const kind = headers?.get(KIND);
  const number = Number(headers?.get(NUMBER) || 0);
  if (!Number.isSafeInteger(number) || number < 0) return undefined;
  switch (kind) {
    case "answer":
    case "failure":
    case "alive":
    case "cancel":
      return { kind };
    case "data":
    case "end":
      return { kind, seq: number };
    case "credit":
      return { kind, count: number };
    default:
      return undefined;
  }
}

/** Sends what belongs to a call. Where the connection is closing, or the subject is none, nobody is left to miss it. */
export function publish(connection: NatsConnection, subject: string, frame: Frame, data?: Uint8Array): void {
  try {
    connection.publish(subject, data, { headers: frameHeaders(frame) });
  } catch (error) {
    if (!NOBODY_THERE.some((kind) => error instanceof kind)) throw error;
  }
}

const NOBODY_THERE = [errors.ClosedConnectionError, errors.DrainingConnectionError, errors.InvalidSubjectError];

export type RequestHead = {
  readonly call: string;
  readonly caller: Caller;
  readonly deadlineMs: number | undefined;
  readonly traceParent: string | undefined;
};

export function requestHeaders({ call, caller, deadlineMs, traceParent }: RequestHead): MsgHdrs {
  const headers = newHeaders();
  headers.set("interlock-call", call);
  headers.set("interlock-caller", JSON.stringify(caller));
  if (deadlineMs !== undefined) headers.set("interlock-deadline", String(Math.ceil(deadlineMs)));
  if (traceParent !== undefined) headers.set("traceparent", traceParent);
  return headers;
}

const name = z.string().regex(NAME);
const caller = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("agent"), tenant: name, agent: name }),
  z.strictObject({
    kind: z.literal("person"),
    tenant: name,
    name,
    roles: z.array(z.enum(["reviewer", "operator"])),
    groups: z.array(name),
  }),
  z.strictObject({ kind: z.literal("service"), name }),
]);

const callId = z.string().regex(/^[A-Za-z0-9]{1,64}$/);
const deadline = z.coerce.number().int().positive();

/** The caller is as the bus says: who may publish a request at all is the NATS server's to decide (deploy/nats.conf). */
const callers = new Map<string, Caller>();
const MAX_CALLERS = 10_000;

function parseCaller(text: string): Caller {
  const known = callers.get(text);
  if (known !== undefined) return known;
  const parsed = caller.parse(JSON.parse(text));
  if (callers.size >= MAX_CALLERS) callers.clear();
  callers.set(text, parsed);
  return parsed;
}

/** @throws RpcError INVALID_ARGUMENT when it is no request of ours. */
export function parseRequestHead(message: Msg): RequestHead {
  try {
    const { headers } = message;
    const call = callId.parse(headers?.get("interlock-call"));
    const until = headers?.get("interlock-deadline") ?? "";
    const deadlineMs = until === "" ? undefined : deadline.parse(until);
    const traceParent = headers?.get("traceparent") || undefined;
    return { call, caller: parseCaller(headers?.get("interlock-caller") ?? ""), deadlineMs, traceParent };
  } catch (cause) {
    throw new RpcError({
      code: "INVALID_ARGUMENT",
      reason: "REQUEST_MALFORMED",
      message: "The request's headers are not those of Interlock's RPC over NATS.",
      cause,
    });
  }
}

/** Total: a failure that NATS would not carry says no more than what it is. */
export function failureBytes(connection: NatsConnection, error: RpcError): Uint8Array {
  const bytes = statusToBinary(toStatus(error));
  if (bytes.length <= mostBytes(connection)) return bytes;
  const { code, reason } = error;
  const message = "The service failed, and said more about it than NATS carries; its log has the rest.";
  return statusToBinary(toStatus(new RpcError({ code, reason: reason.slice(0, 64), message })));
}

/** Total: a failure that cannot be read is a failure all the same. */
export function parseFailure(bytes: Uint8Array): RpcError {
  try {
    const status = statusFromBinary(bytes);
    if (status.code !== Code.OK) return fromStatus(status);
  } catch {
    // below
  }
  return new RpcError({
    code: "UNKNOWN",
    reason: "FAILURE_MALFORMED",
    message: "The service failed in words that cannot be read.",
  });
}

/** @throws RpcError RESOURCE_EXHAUSTED when NATS would not carry it. */
export function checkSize(connection: NatsConnection, bytes: Uint8Array, what: string): void {
  const most = mostBytes(connection);
  if (bytes.length <= most) return;
  throw new RpcError({
    code: "RESOURCE_EXHAUSTED",
    reason: "MESSAGE_TOO_LARGE",
    message: `The ${what} is ${bytes.length} bytes; NATS carries at most ${most}. Send less, or raise max_payload there.`,
  });
}

const HEADER_ROOM = 4096;

function mostBytes({ info }: NatsConnection): number {
  return (info?.max_payload ?? 1 << 20) - HEADER_ROOM;
}
