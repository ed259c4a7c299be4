import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  OpenSession,
  SessionCall,
  SessionRequest,
  SessionResponseSchema,
} from "../../proto/interlock/v1/broker_pb.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { toStatus } from "../shared/rpc/status.ts";
import type { HandlerContext } from "../shared/rpc/types.ts";
import type { Calls } from "./calls.ts";
import type { LiveCall } from "./live.ts";
import type { CallView, Principal } from "./model.ts";
import { parseAgent, parsePrincipal } from "./request.ts";
import { toCall, toCallEvent } from "./wire.ts";

type Response = MessageInitShape<typeof SessionResponseSchema>;

/** Calls at work on one stream; further ones wait in the transport, so a fast sender is slowed down, not refused. */
const MAX_AT_WORK = 512;
/** Responses that the client has not taken; beyond it no more requests are read. */
const MAX_UNSENT = 1024;
/** Calls that wait for people on one stream: they hold a few hundred bytes each. */
const MAX_PARKED = 10_000;

/** One agent run over one stream. */
export async function* serveSession(
  calls: Calls,
  requests: AsyncIterable<SessionRequest>,
  context: HandlerContext,
): AsyncGenerator<Response> {
  const stream = new SessionStream(calls, context);
  void stream.read(requests);
  try {
    yield* stream.responses();
  } finally {
    stream.close();
  }
}

type AtWork = { readonly callId: string; live: LiveCall | undefined };

class SessionStream {
  readonly #calls: Calls;
  readonly #context: HandlerContext;
  readonly #gone = new AbortController();
  readonly #byRequest = new Map<bigint, AtWork>();
  #principal: Principal | undefined;
  #atWork = 0;
  #parked = 0;
  #halfClosed = false;
  #failure: unknown;
  #unsent: Response[] = [];
  #wake: (() => void) | undefined;
  #resumeReading: (() => void) | undefined;

  constructor(calls: Calls, context: HandlerContext) {
    this.#calls = calls;
    this.#context = context;
    context.signal.addEventListener("abort", () => this.close(), { once: true });
  }

  /** The client has gone, or has had enough: what still runs is killed, what waits for people goes on waiting. */
  close(): void {
    this.#gone.abort(new RpcError({ code: "CANCELLED", reason: "CANCELLED", message: "The agent ended its session." }));
    this.#changed();
  }

  async read(requests: AsyncIterable<SessionRequest>): Promise<void> {
    try {
      for await (const request of requests) {
        this.#accept(request);
        while (this.#isFull() && !this.#gone.signal.aborted) {
          await new Promise<void>((resolve) => (this.#resumeReading = resolve));
        }
        if (this.#gone.signal.aborted) break;
      }
    } catch (error) {
      this.#failure = error;
    }
    this.#halfClosed = true;
    this.#changed();
  }

  async *responses(): AsyncGenerator<Response> {
    for (;;) {
      const ready = this.#unsent;
      this.#unsent = [];
      yield* ready;
      this.#changed();
      if (this.#unsent.length > 0) continue;
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#gone.signal.aborted || (this.#halfClosed && this.#atWork === 0)) return;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #isFull(): boolean {
    return this.#atWork >= MAX_AT_WORK || this.#unsent.length >= MAX_UNSENT;
  }

  #changed(): void {
    this.#wake?.();
    this.#wake = undefined;
    if (this.#isFull() && !this.#gone.signal.aborted) return;
    this.#resumeReading?.();
    this.#resumeReading = undefined;
  }

  #send(response: Response): void {
    this.#unsent.push(response);
    this.#changed();
  }

  #accept({ kind }: SessionRequest): void {
    switch (kind.case) {
      case "open":
        this.#open(kind.value);
        return;
      case "call":
        void this.#call(kind.value);
        return;
      case "cancel":
        this.#byRequest.get(kind.value.requestId)?.live?.cancel("The agent cancelled the call.");
        this.#withdraw(kind.value.requestId);
        return;
      case undefined:
        throw invalid("kind", "Send open, call or cancel; this build knows no other request.");
    }
  }

  #open({ session, user }: OpenSession): void {
    if (this.#principal !== undefined)
      throw invalid("open", "Send open once; start another stream for another session.");
    this.#principal = parsePrincipal(parseAgent(this.#context.caller), session, user);
    this.#send({ requestId: 0n, kind: { case: "opened", value: { principal: this.#principal } } });
  }

  async #call(call: SessionCall): Promise<void> {
    const { requestId } = call;
    const principal = this.#principal;
    if (principal === undefined)
      return this.#fail(requestId, invalid("open", "Send open first, with the session's name."));
    if (requestId === 0n || this.#byRequest.has(requestId)) {
      return this.#fail(
        requestId,
        invalid("request_id", "Choose a request_id above 0 that no call at work on this stream has."),
      );
    }
    if (this.#parked >= MAX_PARKED) return this.#fail(requestId, tooManyParked());
    this.#atWork++;
    const { traceParent } = this.#context;
    try {
      const begun = this.#calls.resolve(principal, call);
      const item: AtWork = { callId: begun.call.callId, live: undefined };
      this.#byRequest.set(requestId, item);
      const watch = (live: LiveCall): void => {
        item.live = live;
        if (!call.progress) return;
        live.listen((event) => this.#send({ requestId, kind: { case: "event", value: toCallEvent(event) } }));
      };
      const view = await this.#calls.execute(begun, { signal: this.#gone.signal, traceParent }, 0, watch);
      this.#answer(requestId, view);
      if (view.progress.kind === "pending_approval") void this.#follow(requestId, view);
      else this.#byRequest.delete(requestId);
    } catch (error) {
      this.#byRequest.delete(requestId);
      this.#fail(requestId, RpcError.from(error));
    } finally {
      this.#atWork--;
      this.#changed();
    }
  }

  /** People have been asked: answers once more when the call has ended. */
  async #follow(requestId: bigint, view: CallView): Promise<void> {
    this.#parked++;
    try {
      this.#answer(requestId, await this.#calls.ended(view, this.#gone.signal));
    } catch (error) {
      if (!this.#gone.signal.aborted) this.#fail(requestId, RpcError.from(error));
    } finally {
      this.#parked--;
      this.#byRequest.delete(requestId);
    }
  }

  #withdraw(requestId: bigint): void {
    const item = this.#byRequest.get(requestId);
    const principal = this.#principal;
    if (item === undefined || principal === undefined) return;
    this.#calls.withdraw(principal, item.callId, "The agent cancelled the call.").catch(() => {}); // it has just ended
  }

  #answer(requestId: bigint, view: CallView): void {
    this.#send({ requestId, kind: { case: "call", value: toCall(view) } });
  }

  #fail(requestId: bigint, error: RpcError): void {
    this.#send({ requestId, kind: { case: "error", value: toStatus(error) } });
  }
}

function invalid(field: string, message: string): RpcError {
  return new RpcError({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field, message });
}

function tooManyParked(): RpcError {
  const message = `${MAX_PARKED} calls of this stream wait for people; wait for some of them first.`;
  return new RpcError({ code: "RESOURCE_EXHAUSTED", reason: "TOO_MANY_PENDING", message });
}
