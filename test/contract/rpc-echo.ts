import type { Service } from "../../services/shared/rpc/service.ts";
import type { Caller, Client, Handlers } from "../../services/shared/rpc/types.ts";
import type { EchoService } from "./proto/interlock/test/v1/echo_pb.ts";

/** One way to be connected. What a service and its caller see of it must not depend on which it is. */
export type Transport = {
  readonly name: string;
  /** The largest message it carries; undefined where nothing is serialised. */
  readonly maxMessageBytes: number | undefined;
  /** Serves the service and connects to it as this caller. */
  connect(echo: Service, caller: Caller): Promise<Connected>;
};

export type Connected = AsyncDisposable & { readonly client: Client<typeof EchoService> };

export type EchoHandlers = Handlers<typeof EchoService>;

/** Connects to an echo of which some methods are written for the test. */
export type Connect = (handlers: Partial<EchoHandlers>) => Promise<Connected>;

export const ECHO: EchoHandlers = {
  say: async ({ text }) => ({ text }),
  async *count({ to }) {
    for (let number = 1; number <= to; number += 1) yield { number };
  },
  async *chat(requests) {
    for await (const { text } of requests) yield { text };
  },
  review: async () => ({}),
  inner: async () => ({}),
};

/** What a well-behaved handler does that waits for something: it gives up when its signal says so, and tells why. */
export function untilAborted(signal: AbortSignal, tell: (reason: unknown) => void): Promise<never> {
  return new Promise((_, reject) => {
    const stop = () => {
      tell(signal.reason);
      reject(signal.reason);
    };
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}

export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  return await Array.fromAsync(stream);
}

export async function* texts(...of: string[]): AsyncIterable<{ text: string }> {
  for (const text of of) yield { text };
}
