import { create, type DescMethod, type DescService } from "@bufbuild/protobuf";
import { CallScope, cancelled } from "./call-scope.ts";
import {
  type BidiHandler,
  type Init,
  type Message,
  makeClient,
  type ServerStreamHandler,
  type UnaryHandler,
} from "./client.ts";
import { RpcError } from "./errors.ts";
import { close, END, requestsOf } from "./iterators.ts";
import { methodName, type Service } from "./service.ts";
import { traceParentOf } from "./trace.ts";
import type { Caller, CallOptions, Client, HandlerContext } from "./types.ts";

/** Calls a service of this process as if over a wire: same errors, deadlines, cancellation and backpressure. */
export function localClient<S extends DescService>(service: Service, options: { readonly caller: Caller }): Client<S> {
  const handlerOf = <H>(method: DescMethod) => service.handlers[method.localName] as H;
  return makeClient(service.desc as S, {
    unary: (method) => {
      const handler = handlerOf<UnaryHandler>(method);
      const contextOf = contexts(method, options.caller);
      return (request, call = {}) => callUnary(method, handler, request, contextOf, call);
    },
    serverStream: (method) => {
      const handler = handlerOf<ServerStreamHandler>(method);
      const contextOf = contexts(method, options.caller);
      return (request, call = {}) =>
        new LocalStream(method, call, (scope) => handler(create(method.input, request), contextOf(scope, call)));
    },
    bidi: (method) => {
      const handler = handlerOf<BidiHandler>(method);
      const contextOf = contexts(method, options.caller);
      return (requests, call = {}) =>
        new LocalStream(method, call, (scope) => {
          const read = (request: Init) => create(method.input, request);
          return handler(requestsOf(requests[Symbol.asyncIterator](), scope, read), contextOf(scope, call));
        });
    },
  });
}

type ContextOf = (scope: CallScope, options: CallOptions) => HandlerContext;

function contexts(method: DescMethod, own: Caller): ContextOf {
  const name = methodName(method);
  return (scope, { caller, deadlineMs, traceParent }) => ({
    caller: caller ?? own,
    signal: scope.signal,
    deadlineMs,
    traceParent: traceParentOf(traceParent),
    method: name,
  });
}

async function callUnary(
  method: DescMethod,
  handler: UnaryHandler,
  request: Init,
  contextOf: ContextOf,
  options: CallOptions,
): Promise<Message> {
  const scope = new CallScope(options);
  try {
    if (scope.failure !== undefined) throw scope.failure;
    const answer = handler(create(method.input, request), contextOf(scope, options));
    return create(method.output, await scope.race(answer));
  } catch (thrown) {
    throw RpcError.from(thrown);
  } finally {
    scope.end();
  }
}

/**
 * The answers of a streaming handler, pulled from it one at a time. Written out rather than a generator, whose
 * `return` would wait for a pending `next`: a caller that stops must stop the handler at once.
 */
class LocalStream implements AsyncIterableIterator<Message, undefined> {
  readonly #method: DescMethod;
  readonly #options: CallOptions;
  readonly #open: (scope: CallScope) => AsyncIterable<Init>;
  #running: { readonly scope: CallScope; readonly answers: AsyncIterator<Init> } | undefined;
  #done = false;

  constructor(method: DescMethod, options: CallOptions, open: (scope: CallScope) => AsyncIterable<Init>) {
    this.#method = method;
    this.#options = options;
    this.#open = open;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Message, undefined>> {
    if (this.#done) return END;
    try {
      this.#running ??= this.#start();
      const { scope, answers } = this.#running;
      const step = await scope.race(answers.next());
      if (step.done !== true) return { done: false, value: create(this.#method.output, step.value) };
      this.#done = true;
      scope.end();
      return END;
    } catch (thrown) {
      const failure = RpcError.from(thrown);
      this.#stop(failure);
      throw failure;
    }
  }

  async return(): Promise<IteratorResult<Message, undefined>> {
    this.#stop(cancelled());
    return END;
  }

  #start(): { scope: CallScope; answers: AsyncIterator<Init> } {
    const scope = new CallScope(this.#options);
    if (scope.failure !== undefined) throw scope.failure;
    const answers = this.#open(scope)[Symbol.asyncIterator]();
    scope.onEnd(() => close(answers));
    return { scope, answers };
  }

  #stop(reason: Error): void {
    this.#done = true;
    this.#running?.scope.fail(reason);
  }
}
