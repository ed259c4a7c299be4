import { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import { BrokerService } from "../../proto/interlock/v1/broker_pb.ts";
import { LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import { RpcError } from "../../services/shared/rpc/errors.ts";
import { openGrpcChannel } from "../../services/shared/rpc/grpc-client.ts";
import type { Client } from "../../services/shared/rpc/types.ts";
import type { Running } from "./interlock.ts";

/** The three people at Interlock's door, each with a key of their own. */
export type Clients = AsyncDisposable & {
  readonly agent: Client<typeof BrokerService>;
  readonly reviewer: Client<typeof ApprovalsService>;
  readonly operator: Client<typeof BrokerService>;
  readonly money: Client<typeof LedgerService>;
};

export function connectTo(running: Pick<Running, "address" | "keys">): Clients {
  const { address, keys } = running;
  const stack = new AsyncDisposableStack();
  const as = (apiKey: string) => stack.use(openGrpcChannel({ address, apiKey }));
  const operator = as(keys.operator);
  return {
    agent: as(keys.agent).client(BrokerService),
    reviewer: as(keys.reviewer).client(ApprovalsService),
    operator: operator.client(BrokerService),
    money: operator.client(LedgerService),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** The RpcError that a promise rejects with; a promise that resolves fails the test. */
export async function refusalOf(promise: Promise<unknown>): Promise<RpcError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof RpcError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

/** Everything that is held now, by budget name. */
export async function heldOf(clients: Clients): Promise<Record<string, bigint>> {
  const { budgets } = await clients.money.listBudgets({});
  return Object.fromEntries(budgets.filter((b) => b.held !== 0n).map((b) => [`${b.name} ${b.subject}`, b.held]));
}

/** Asks again until the condition holds; fails, saying what was last seen, when the time is over. */
export async function eventually<T>(ask: () => Promise<T>, holds: (seen: T) => boolean, withinMs = 15_000): Promise<T> {
  const deadline = Date.now() + withinMs;
  let seen: unknown = "nothing";
  while (Date.now() < deadline) {
    try {
      const answer = await ask();
      if (holds(answer)) return answer;
      seen = answer;
    } catch (error) {
      seen = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(
    `it did not come true within ${withinMs} ms; last seen: ${seen instanceof Error ? seen.stack : JSON.stringify(seen, (_, v) => (typeof v === "bigint" ? String(v) : v))}`,
  );
}
