import { type MsgHdrs, type NatsConnection, headers as newHeaders } from "@nats-io/transport-node";
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
/** A side that says nothing for so long is gone. */
export const LOST_AFTER_MS = 6_000;
export const ALIVE_EVERY_MS = 2_000;

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

export function frameHeaders(frame: Frame): MsgHdrs {
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

/** undefined for what is no frame of ours: whoever sent it gets no answer. */
export function parseFrame(headers: MsgHdrs | undefined): Frame | undefined {
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
export function parseRequestHead(headers: MsgHdrs | undefined): RequestHead {
  try {
    const call = z
      .string()
      .regex(/^[A-Za-z0-9]{1,64}$/)
      .parse(headers?.get("interlock-call"));
    const deadline = headers?.get("interlock-deadline") ?? "";
    const deadlineMs = deadline === "" ? undefined : z.coerce.number().int().positive().parse(deadline);
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

export function failureBytes(error: RpcError): Uint8Array {
  return statusToBinary(toStatus(error));
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
  const most = (connection.info?.max_payload ?? 1 << 20) - HEADER_ROOM;
  if (bytes.length <= most) return;
  throw new RpcError({
    code: "RESOURCE_EXHAUSTED",
    reason: "MESSAGE_TOO_LARGE",
    message: `The ${what} is ${bytes.length} bytes; NATS carries at most ${most}. Send less, or raise max_payload there.`,
  });
}

const HEADER_ROOM = 4096;
