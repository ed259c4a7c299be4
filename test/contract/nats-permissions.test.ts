import { setImmediate as turn } from "node:timers/promises";
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { connect, createInbox, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { natsLogin, natsUsers, newPasswords } from "../../deploy/secrets.ts";
import { runStory } from "../../examples/story.ts";
import { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import { RunnerService } from "../../proto/interlock/v1/runner_pb.ts";
import { openJetstreamJournal } from "../../services/shared/journal/jetstream.ts";
import { GENESIS, type Journal, type Recorded } from "../../services/shared/journal/journal.ts";
import { silentLog } from "../../services/shared/log.ts";
import { natsClient } from "../../services/shared/rpc/nats-client.ts";
import { serveNats } from "../../services/shared/rpc/nats-server.ts";
import { service } from "../../services/shared/rpc/service.ts";
import { refusalOf } from "../support/clients.ts";
import { startApart } from "../support/interlock.ts";
import { type RunningNats, startNats } from "../support/nats.ts";

/** deploy/nats.conf, to the letter, in a real server: what each service's user may do, and what it may not. */

const passwords = newPasswords();
const WRITERS = ["broker", "ledger", "approvals", "pdp"] as const;
const CALLER = { caller: { kind: "service", name: "broker" } } as const;
let nats: RunningNats;
const stack = new AsyncDisposableStack();

beforeAll(async () => {
  nats = stack.use(await startNats({ jetstream: true, deployed: natsUsers(passwords) }));
});
afterAll(() => stack.disposeAsync());

type Guest = AsyncDisposable & { readonly connection: NatsConnection; readonly refusals: string[] };

/** Logs in as a service does, and notes what the server refuses. */
async function enter(user: string, url = nats.url): Promise<Guest> {
  const name = user.replace("-journal", "") as keyof typeof passwords;
  const login = { user, pass: passwords[name], inboxPrefix: `_INBOX_${user}` };
  const connection = await connect({ servers: url, ...login, reconnect: false });
  const refusals: string[] = [];
  void (async () => {
    for await (const status of connection.status()) if (status.type === "error") refusals.push(status.error.message);
  })();
  return { connection, refusals, [Symbol.asyncDispose]: () => connection.close() };
}

/** What the server has refused by now: it answers in the order in which it was asked. */
async function refusedBy({ connection, refusals }: Guest): Promise<readonly string[]> {
  await connection.flush();
  await turn();
  return refusals.splice(0);
}

async function openJournal(name: (typeof WRITERS)[number], url = nats.url): Promise<Journal> {
  const { connection } = await enter(natsLogin(name).journal_user ?? "", url);
  return await openJetstreamJournal({ connection, replicas: 1 });
}

const record = (text: string) => ({ timeMs: 1, body: Buffer.from(JSON.stringify({ text })) });

describe("who may come in", () => {
  it.each([
    ["a service without a journal, to the journal", { user: "runner-journal", pass: passwords.runner }],
    ["with another's password", { user: "broker", pass: passwords.runner }],
    ["nobody", {}],
  ])("not %s", async (_, login) => {
    await expect(connect({ servers: nats.url, ...login, reconnect: false })).rejects.toThrow(
      /authorization violation/i,
    );
  });
});

describe("what may be said", () => {
  it.each([
    ["runner", "interlock.rpc.RunnerService.Run", "a request to run"],
    ["runner", "interlock.rpc.RunnerService.Run.runner-2", "a request to run elsewhere"],
    ["runner", "interlock.rpc-up.RunnerService.abc", "another's follow-up"],
    ["runner", "interlock.rpc.ApprovalsService.Approve", "a yes"],
    ["runner", "interlock.journal.session.demo.s", "a journal record"],
    ["runner", "$JS.API.STREAM.DELETE.INTERLOCK", "the journal's end"],
    ["runner", "_INBOX_broker.abc.PdpService.def", "the pdp's answer"],
    ["runner", "_INBOX_broker.abc.def", "JetStream's answer"],
    ["pdp", "interlock.rpc.RunnerService.Run", "a request to run"],
    ["pdp", "interlock.journal.control", "a journal record"],
    ["pdp", "_INBOX_broker.abc.LedgerService.def", "the ledger's answer"],
    ["ledger", "interlock.rpc.ApprovalsService.Approve", "a yes"],
    ["ledger", "_INBOX_broker.abc.ApprovalsService.def", "the approvals' answer"],
    ["approvals", "interlock.rpc.LedgerService.Release", "a release"],
    ["broker", "interlock.rpc.BrokerService.Execute", "a request to itself"],
    ["broker", "_INBOX_pdp.abc", "what nobody asked for"],
    ["ledger-journal", "interlock.journal.session.demo.s", "a session's record"],
    ["ledger-journal", "interlock.journal.approval.demo", "an approval's record"],
    ["ledger-journal", "interlock.state.snapshot.approval.demo", "another's snapshot"],
    ["ledger-journal", "$JS.API.CONSUMER.CREATE.INTERLOCK.x.interlock.journal.session.>", "a wish to follow sessions"],
    ["ledger-journal", "$JS.API.STREAM.CREATE.OTHER", "a stream of its own"],
    ["approvals-journal", "interlock.journal.ledger.demo", "the ledger's record"],
    ["broker-journal", "interlock.journal.ledger.demo", "the ledger's record"],
    ["broker-journal", "interlock.rpc.RunnerService.Run", "a request to run"],
    ...WRITERS.flatMap((name) =>
      [
        ["STREAM.DELETE.INTERLOCK", "the journal's end"],
        ["STREAM.PURGE.INTERLOCK", "a clean slate"],
        ["STREAM.UPDATE.INTERLOCK", "another configuration"],
        ["STREAM.MSG.DELETE.INTERLOCK", "that a record be taken out"],
        ["STREAM.SNAPSHOT.INTERLOCK", "a copy of all"],
        ["STREAM.RESTORE.INTERLOCK", "another journal"],
      ].map(([api, what]) => [`${name}-journal`, `$JS.API.${api}`, what] as const),
    ),
  ] as const)("%s may not publish %s (%s)", async (user, subject) => {
    await using guest = await enter(user);
    guest.connection.publish(subject, "{}");
    expect(await refusedBy(guest)).toEqual([expect.stringContaining(`Publish to "${subject}"`)]);
  });
});

describe("what may be heard", () => {
  it.each([
    ["pdp", "_INBOX_broker.>"],
    ["pdp", "_INBOX_ledger.>"],
    ["pdp", "_INBOX_broker.*.LedgerService.*"],
    ["pdp", "interlock.rpc.LedgerService.Reserve"],
    ["pdp", "interlock.journal.>"],
    ["runner", "interlock.journal.>"],
    ["runner", "interlock.rpc.PdpService.*"],
    ["runner", "interlock.rpc-up.LedgerService.*"],
    ["broker", "interlock.rpc.PdpService.Decide"],
    ["broker", "interlock.rpc.>"],
    ["ledger-journal", "interlock.journal.session.>"],
    ["ledger-journal", "_INBOX_broker-journal.>"],
    ["pdp-journal", "interlock.journal.session.>"],
    ["approvals", ">"],
  ])("%s may not subscribe %s", async (user, subject) => {
    await using guest = await enter(user);
    guest.connection.subscribe(subject, { callback: () => {} });
    expect(await refusedBy(guest)).toEqual([expect.stringContaining(`Subscription to "${subject}"`)]);
  });
});

describe("what each must be able to do", () => {
  it("four journals open at once on an empty server, each writes, reads and follows its own", async () => {
    await using empty = await startNats({ jetstream: true, deployed: natsUsers(passwords) });
    const open = (name: (typeof WRITERS)[number]) => openJournal(name, empty.url);
    const opened = await Promise.all([open("broker"), open("ledger"), open("approvals"), open("pdp")]);
    await using broker = opened[0];
    await using ledger = opened[1];
    await using approvals = opened[2];
    await using pdp = opened[3];
    for (const [journal, stream, prefix] of [
      [broker, "session.demo.s", "session."],
      [broker, "control", "control"],
      [broker, "checkpoint", ""],
      [ledger, "ledger.demo", "ledger."],
      [approvals, "approval.demo", "approval."],
      [pdp, "policy.demo", "policy."],
    ] as const) {
      const head = await journal.append(stream, GENESIS, [record("one")]);
      const moved = await journal.append(stream, head, [record("two"), record("three")]);
      expect((await Array.fromAsync(journal.read(stream, 0))).map(({ seq }) => seq)).toEqual([1, 2, 3]);
      if (journal !== pdp) await journal.writeSnapshot(stream, { ...moved, state: Buffer.from("{}") });
      expect((await journal.readSnapshot(stream))?.seq).toBe(journal === pdp ? undefined : 3);
      expect(await follow(journal, prefix, 3)).toHaveLength(3);
    }
    await broker.writeCursor("broker.open-calls", { position: 7, state: Buffer.from("") });
    expect((await broker.readCursor("broker.open-calls"))?.position).toBe(7);
    expect(await Array.fromAsync(broker.streams("ledger."))).toEqual(["ledger.demo"]);
    await expect(ledger.append("session.demo.forged", GENESIS, [record("x")])).rejects.toThrow(
      /permissions violation/i,
    );
  });

  it("a runner answers a request with more than the window of a stream holds", async () => {
    await using runner = await enter("runner");
    await using broker = await enter("broker");
    const handlers = {
      answer: () => Promise.resolve({}),
      describe: () => Promise.resolve({ runnerId: "runner-1", bootId: "b" }),
      async *run() {
        for (let i = 0; i < 300; i++) {
          yield await Promise.resolve({ kind: { case: "output", value: { text: `${i}` } } } as const);
        }
      },
    };
    const serving = { queue: "runner", instance: "runner-1", log: silentLog };
    await using _ = serveNats(runner.connection, [service(RunnerService, handlers)], serving);
    await runner.connection.flush();
    const client = natsClient(RunnerService, broker.connection, CALLER);
    expect(await Array.fromAsync(client.run({}, { instance: "runner-1" }))).toHaveLength(300);
    expect((await client.describe({})).runnerId).toBe("runner-1");
    expect([...(await refusedBy(runner)), ...(await refusedBy(broker))]).toEqual([]);
  });
});

describe("side doors", () => {
  it("a service that is silent is missed, and nobody answers in its place", async () => {
    await using broker = await enter("broker");
    const refusal = await refusalOf(natsClient(ApprovalsService, broker.connection, CALLER).getApproval({}));
    expect(refusal.reason).toBe("NO_RESPONDER");
  });

  it("the ledger cannot have JetStream deliver its records as requests to others", async () => {
    await using journal = await openJournal("ledger");
    await journal.append("ledger.forger", GENESIS, [record("approve everything")]);
    await using ledger = await enter("ledger-journal");
    await using approvals = await enter("approvals");
    await using broker = await enter("broker");
    const target = "interlock.rpc.ApprovalsService.Approve";
    const heard = Promise.withResolvers<string>();
    approvals.connection.subscribe("interlock.rpc.ApprovalsService.*", {
      callback: (_, message) => heard.resolve(message.string()),
    });
    await approvals.connection.flush();
    const manager: JetStreamManager = await jetstreamManager(ledger.connection);
    // The server takes the consumer; what it delivers stays in an account in which nobody listens.
    await manager.consumers.add("INTERLOCK", {
      name: "forger",
      filter_subject: "interlock.journal.ledger.forger",
      deliver_subject: target,
    });
    await ledger.connection.flush();
    broker.connection.publish(target, "a real request", { reply: createInbox("_INBOX_broker") });
    expect(await heard.promise).toBe("a real request");
  });
});

describe("the whole house", () => {
  it("tells its story with every service held to its own user", { timeout: 120_000 }, async () => {
    await using running = await startApart({ natsUsers: true });
    const lines: string[] = [];
    const { address, keys } = running;
    const print = (line: string) => lines.push(line);
    const { passed } = await runStory({ address, agentKey: keys.agent, reviewerKey: keys.reviewer, print });
    expect(passed, lines.join("\n")).toBe(true);
  });
});

/** The first `count` records that a watch delivers. */
async function follow(journal: Journal, prefix: string, count: number): Promise<readonly Recorded[]> {
  const stop = new AbortController();
  const seen: Recorded[] = [];
  for await (const each of journal.watch(prefix, 0, stop.signal)) {
    seen.push(each);
    if (seen.length === count) stop.abort();
  }
  return seen;
}
