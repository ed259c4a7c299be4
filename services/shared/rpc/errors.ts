/** google.rpc.Code, by name. One vocabulary on every transport. */
export const Code = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;
export type CodeName = Exclude<keyof typeof Code, "OK">;

export type RpcErrorInit = {
  code: CodeName;
  /** UPPER_SNAKE, what a program switches on: google.rpc.ErrorInfo.reason in domain "interlock". */
  reason: string;
  /** One sentence: what is wrong and how to mend it. Shown to the caller. */
  message: string;
  /** The request field at fault, as the caller names it. */
  field?: string;
  /** ErrorInfo.metadata: stage, call_id, budget, rule, ... Never a secret. */
  metadata?: Readonly<Record<string, string>>;
  /** Set when the same request may succeed later: wait this long first. */
  retryAfterMs?: number;
  /** For the log only; never sent. */
  cause?: unknown;
};

/** What a fault or refusal is while it crosses a service's border, on any transport. */
export class RpcError extends Error {
  readonly code: CodeName;
  readonly reason: string;
  readonly field: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | undefined;

  constructor(init: RpcErrorInit) {
    super(init.message, { cause: init.cause });
    this.name = "RpcError";
    this.code = init.code;
    this.reason = init.reason;
    this.field = init.field;
    this.metadata = init.metadata ?? {};
    this.retryAfterMs = init.retryAfterMs;
  }

  /** Total: whatever was thrown becomes an RpcError. A bug's text stays in the cause and is never sent. */
  static from(thrown: unknown): RpcError {
    if (thrown instanceof RpcError) return thrown;
    if (thrown instanceof Error && thrown.name === "TimeoutError") {
      return new RpcError({
        code: "DEADLINE_EXCEEDED",
        reason: "DEADLINE_EXCEEDED",
        message: "The deadline passed before the answer came.",
        cause: thrown,
      });
    }
    if (thrown instanceof Error && thrown.name === "AbortError") {
      return new RpcError({
        code: "CANCELLED",
        reason: "CANCELLED",
        message: "The caller cancelled the request.",
        cause: thrown,
      });
    }
    return new RpcError({
      code: "INTERNAL",
      reason: "INTERNAL",
      message: "An internal error; the operator's log has its cause.",
      cause: thrown,
    });
  }
}
