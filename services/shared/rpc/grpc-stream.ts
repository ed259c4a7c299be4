import { CallScope, cancelled } from "./call-scope.ts";
import type { Init, Message } from "./client.ts";
import { RpcError } from "./errors.ts";
import { cancelCall, decode, encode, type RawCall, type Target } from "./grpc-call.ts";
import { fromGrpcStatus } from "./grpc-status.ts";
import { close, END } from "./iterators.ts";
import type { CallOptions } from "./types.ts";

/** How many answers are taken off the wire before they are asked for. */
const READ_AHEAD = 16;

/**
 * The answers of one streaming call, from its first `next` on. A reader that does not read stops the server by HTTP/2
 * flow control, and requests are asked for only as fast as the server takes them.
 */
export class GrpcStream implements AsyncIterableIterator<Message, undefined> {
  readonly #target: Target;
  readonly #requests: AsyncIterable<Init>;
  readonly #options: CallOptions;
  readonly #arrived: Uint8Array[] = [];
  readonly #waiting: PromiseWithResolvers<IteratorResult<Message, undefined>>[] = [];
  #running: { readonly call: RawCall; readonly scope: CallScope } | undefined;
  #reading = false;
  #ended = false;
  /** What the reader hears once, after the answers that arrived. */
  #failure: RpcError | undefined;

  constructor(target: Target, requests: AsyncIterable<Init>, options: CallOptions) {
    this.#target = target;
    this.#requests = requests;
    this.#options = options;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Message, undefined>> {
    if (this.#running === undefined && !this.#ended) this.#start();
    const bytes = this.#arrived.shift();
    if (bytes !== undefined) {
      this.#readAhead();
      return this.#answer(bytes);
    }
    if (!this.#ended) {
      const waiting = Promise.withResolvers<IteratorResult<Message, undefined>>();
      this.#waiting.push(waiting);
      return await waiting.promise;
    }
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
    return END;
  }

  async return(): Promise<IteratorResult<Message, undefined>> {
    this.#stop(RpcError.from(cancelled()));
    this.#failure = undefined;
    return END;
  }

  #start(): void {
    const { signal } = this.#options;
    const scope = new CallScope(signal === undefined ? {} : { signal });
    if (scope.failure !== undefined) {
      this.#end(scope.failure);
      return;
    }
    const { call, metadata } = this.#target.open(this.#options);
    this.#running = { call, scope };
    call.start(metadata, {
      onReceiveMetadata: () => {},
      onReceiveMessage: (bytes: Uint8Array) => this.#onMessage(bytes),
      onReceiveStatus: (status) => {
        this.#end(status.code === 0 ? undefined : fromGrpcStatus(status, this.#target.address));
        scope.end();
      },
    });
    scope.onEnd(() => {
      if (scope.failure !== undefined) this.#stop(scope.failure);
    });
    this.#readAhead();
    void this.#send(call, scope);
  }

  /** Sends the requests one by one, each when the one before it is written. */
  async #send(call: RawCall, scope: CallScope): Promise<void> {
    const source = this.#requests[Symbol.asyncIterator]();
    scope.onEnd(() => close(source));
    try {
      for (;;) {
        const step = await source.next();
        if (this.#ended) return;
        if (step.done === true) {
          call.halfClose();
          return;
        }
        const bytes = encode(this.#target.method, step.value);
        await scope.race(
          new Promise<void>((written) => call.sendMessageWithContext({ callback: () => written() }, bytes)),
        );
      }
    } catch (thrown) {
      this.#stop(RpcError.from(thrown));
    }
  }

  #onMessage(bytes: Uint8Array): void {
    this.#reading = false;
    if (this.#ended) return;
    const waiting = this.#waiting.shift();
    if (waiting === undefined) {
      this.#arrived.push(bytes);
    } else {
      try {
        waiting.resolve(this.#answer(bytes));
      } catch (failure) {
        waiting.reject(failure);
      }
    }
    this.#readAhead();
  }

  #readAhead(): void {
    if (this.#reading || this.#ended || this.#arrived.length >= READ_AHEAD) return;
    this.#reading = true;
    this.#running?.call.startRead();
  }

  #answer(bytes: Uint8Array): IteratorResult<Message, undefined> {
    try {
      return { done: false, value: decode(this.#target.method, bytes) };
    } catch (thrown) {
      const failure = RpcError.from(thrown);
      this.#stop(failure);
      this.#failure = undefined;
      throw failure;
    }
  }

  /** From this side, at once: what arrived and was not read is dropped. */
  #stop(failure: RpcError): void {
    this.#arrived.length = 0;
    if (this.#ended) return;
    this.#end(failure);
    if (this.#running === undefined) return;
    cancelCall(this.#running.call);
    this.#running.scope.end();
  }

  #end(failure: RpcError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#failure = failure;
    for (const waiting of this.#waiting.splice(0)) {
      if (this.#failure === undefined) waiting.resolve(END);
      else waiting.reject(this.#failure);
      this.#failure = undefined;
    }
  }
}
