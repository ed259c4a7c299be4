import type {
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";

/** Who is at the other end, as proved by their credential (never as claimed in a request). */
export type Caller =
  | { readonly kind: "agent"; readonly tenant: string; readonly agent: string }
  | {
      readonly kind: "person";
      readonly tenant: string;
      readonly name: string;
      readonly roles: readonly ("reviewer" | "operator")[];
      /** Approver groups the person belongs to. */
      readonly groups: readonly string[];
    }
  /** One of our own services, on the local or NATS transport. */
  | { readonly kind: "service"; readonly name: string };

/** W3C trace context: the value of `traceparent`. */
export type TraceParent = string;

/** What a handler knows besides its request; the same on every transport. */
export type HandlerContext = {
  readonly caller: Caller;
  /** Aborts when the caller cancels, disconnects, or the deadline passes (reason: TimeoutError). */
  readonly signal: AbortSignal;
  /** Unix milliseconds; undefined when the caller set none. */
  readonly deadlineMs: number | undefined;
  readonly traceParent: TraceParent;
  /** `<package>.<Service>/<Method>` */
  readonly method: string;
};

export type CallOptions = {
  readonly signal?: AbortSignal;
  /** Unix milliseconds. A context's deadline is passed on by passing it here. */
  readonly deadlineMs?: number;
  readonly traceParent?: TraceParent;
  /** On whose behalf a service forwards; the default is the client's own identity. Local and NATS only. */
  readonly caller?: Caller;
  /** One named instance of a service (a runner id), rather than any of its replicas. */
  readonly instance?: string;
};

/**
 * A service, implemented once: one plain function per method of its descriptor.
 * Unary: `(request, context) => Promise<response>`; streams are async iterables.
 */
export type Handlers<S extends DescService> = {
  [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O>
    ? (request: MessageShape<I>, context: HandlerContext) => Promise<MessageInitShape<O>>
    : S["method"][K] extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageShape<I>, context: HandlerContext) => AsyncIterable<MessageInitShape<O>>
      : S["method"][K] extends DescMethodBiDiStreaming<infer I, infer O>
        ? (requests: AsyncIterable<MessageShape<I>>, context: HandlerContext) => AsyncIterable<MessageInitShape<O>>
        : never;
};

/** The same service seen from its caller. Every rejection is an RpcError. */
export type Client<S extends DescService> = {
  [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : S["method"][K] extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
      : S["method"][K] extends DescMethodBiDiStreaming<infer I, infer O>
        ? (requests: AsyncIterable<MessageInitShape<I>>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
        : never;
};
