import type { EgressDecision } from "../../shared/egress.ts";

export type RefusalReason =
  | Extract<EgressDecision, { kind: "deny" }>["reason"]
  | "ADDRESS_NOT_PUBLIC"
  | "NO_ADDRESS"
  | "REQUEST_INVALID"
  | "HOST_HEADER_MISMATCH"
  | "SNI_MISMATCH"
  | "SNI_MISSING"
  | "SNI_ENCRYPTED"
  | "NOT_TLS"
  | "BYTES_EXCEEDED"
  | "BODY_TOO_LARGE"
  | "TOO_MANY_REQUESTS"
  | "CREDENTIAL_AMBIGUOUS"
  | "RESPONSE_NOT_READABLE"
  | "UPSTREAM_FAILED";

/** Why something was not let through. What the program and its model read, and the record shows. */
export class EgressRefusal extends Error {
  readonly reason: RefusalReason;
  /** The rule that would allow it; undefined where none can. */
  readonly missing: string | undefined;

  constructor(reason: RefusalReason, message: string, missing?: string) {
    super(message);
    this.reason = reason;
    this.missing = missing;
  }

  /** 403: we refuse. 400: no request. 502: the other side. Never one that the server behind could have sent as its own. */
  get status(): number {
    if (this.reason === "UPSTREAM_FAILED" || this.reason === "NO_ADDRESS" || this.reason === "RESPONSE_NOT_READABLE") {
      return 502;
    }
    if (this.reason === "TOO_MANY_REQUESTS") return 429;
    return this.reason === "REQUEST_INVALID" ? 400 : 403;
  }

  body(requestId: string): string {
    const rule = this.missing === undefined ? {} : { missing_rule: this.missing };
    return `${JSON.stringify({ error: { by: "interlock", reason: this.reason, message: this.message, ...rule, request_id: requestId } })}\n`;
  }
}

/** @throws EgressRefusal */
export function allowed(decision: EgressDecision): Extract<EgressDecision, { kind: "allow" }> {
  if (decision.kind === "allow") return decision;
  throw new EgressRefusal(decision.reason, decision.message, decision.missing);
}
