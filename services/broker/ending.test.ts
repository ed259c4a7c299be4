import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import { LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import type { Decided } from "../shared/decider.ts";
import { silentLog } from "../shared/log.ts";
import { canonicalManifest, manifestSchema } from "../shared/manifest.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { localClient } from "../shared/rpc/local.ts";
import type { Service } from "../shared/rpc/service.ts";
import { newSigningKeyPem, type Signer, signerFromPem } from "../shared/signing.ts";
import type { Undo } from "./call.ts";
import { Ending } from "./ending.ts";
import { ALLOW, callOf, NOW_MS, REFUSED, resultOf, SUCCEEDED } from "./fixture.ts";
import { CLEAR } from "./guard/loops.ts";
import { NO_PROVENANCE } from "./guard/provenance.ts";
import { LiveCall, Waiters } from "./live.ts";
import type { Outcome } from "./model.ts";
import { Outbox } from "./outbox.ts";
import type { Sessions } from "./pipeline.ts";
import type { SessionCommand, SessionEvent, SessionRefusal } from "./session.ts";
import type { Work } from "./work.ts";

/** What an end leaves: its record, and what becomes of the hold and of the question to people. */

type Verdict = Decided<SessionEvent, SessionRefusal>;
const LANDED = { kind: "accepted", events: [{ kind: "cancelling", callId: "call-1", reason: "" }] } as const;
const TAKEN: Verdict = { kind: "refused", refusal: { kind: "taken" } };
const ALREADY: Verdict = { kind: "accepted", events: [] };
const AWAY = new RpcError({ code: "UNAVAILABLE", reason: "JOURNAL_UNAVAILABLE", message: "Away." });

const CHARGE: Undo = { hold: "charge", withdrawApproval: false };
const RELEASE: Undo = { hold: "release", withdrawApproval: true };

/** At once: the real one waits for the end of the turn. */
const SIGNER: Signer = {
  ...signerFromPem(newSigningKeyPem()),
  sign: async (_, payload) => ({ payload, signature: new Uint8Array(64), keyId: "k" }),
};

function toolOf(price: object) {
  const manifest = manifestSchema.parse({
    name: "orders.lookup",
    version: "1.0.0",
    description: "Looks up an order.",
    impact: "low",
    labels: ["private-data"],
    arguments: { type: "object" },
    sandbox: { kind: "builtin", name: "noop" },
    price,
  });
  return { manifest, ...canonicalManifest(manifest), models: {}, problemOf: () => undefined };
}

/** An ending on a session that answers each record by the next of these. */
function open(...answers: readonly (Verdict | Error)[]) {
  const log: string[] = [];
  const records: SessionCommand[] = [];
  const execute = async (_: string, command: SessionCommand): Promise<Verdict> => {
    const answer = answers[records.push(command) - 1];
    log.push("record");
    if (answer === undefined) throw new Error("it was recorded too often");
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const handlers = (name: string) => async (request: { amounts?: { unit: string; value: bigint }[] }) => {
    log.push([name, ...(request.amounts ?? []).map(({ unit, value }) => `${value} ${unit}`)].join(" "));
    return {};
  };
  const asService = (desc: Service["desc"], methods: readonly string[]): Service => ({
    desc,
    handlers: Object.fromEntries(methods.map((method) => [method, handlers(method)])),
  });
  const caller = { kind: "service", name: "broker" } as const;
  const waiters = new Waiters();
  const outbox = new Outbox(silentLog);
  const ending = new Ending({
    sessions: { execute } as unknown as Sessions,
    ledger: localClient<typeof LedgerService>(asService(LedgerService, ["commit", "release"]), { caller }),
    approvals: localClient<typeof ApprovalsService>(asService(ApprovalsService, ["cancelApproval"]), { caller }),
    ...{ signer: SIGNER, outbox, waiters, log: silentLog, now: () => NOW_MS },
  });
  const end = (outcome: Outcome, undo: Undo, change: Partial<Work> = {}) => {
    const work: Work = {
      ...{ call: callOf(), tool: toolOf({ usd_micros: 5, cpu_ms: 100 }), live: new LiveCall("call-1", () => NOW_MS) },
      ...{
        io: { signal: new AbortController().signal },
        attempt: "try-1",
        labels: [],
        loop: CLEAR,
        provenance: NO_PROVENANCE,
        spent: {},
      },
      ...change,
    };
    return ending.end(work, { kind: "end", outcome, undo, decision: ALLOW });
  };
  return { end, log, records, waiters };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("a call that ran", () => {
  test("is charged what was measured where it was, and else what was estimated", async () => {
    const { end, log, records } = open(LANDED);
    expect(await end(SUCCEEDED, CHARGE)).toEqual({ kind: "ended", outcome: SUCCEEDED });
    await vi.advanceTimersByTimeAsync(0);
    expect(new Set(log)).toEqual(new Set(["commit 1 calls 5 usd_micros 3 cpu_ms", "record"]));
    expect(records[0]).toMatchObject({ kind: "end", attempts: ["try-1"], addLabels: ["private-data"], endMs: NOW_MS });
  });

  test("and whose end is not known is charged as estimated", async () => {
    const { end, log } = open(LANDED);
    await end({ kind: "outcome_unknown", message: "gone" }, CHARGE);
    await vi.advanceTimersByTimeAsync(0);
    expect(log).toContain("commit 1 calls 5 usd_micros 100 cpu_ms");
  });

  test("in the place of another attempt ends that one too", async () => {
    const { end, records } = open(LANDED);
    await end(SUCCEEDED, CHARGE, { attempt: "try-2", replaces: "try-1" });
    expect(records[0]).toMatchObject({ attempts: ["try-2", "try-1"] });
  });

  test("is charged even where another has ended it; what the other recorded counts", async () => {
    const { end, log } = open(ALREADY);
    expect(await end({ kind: "failed", result: resultOf() }, CHARGE)).toEqual({ kind: "taken" });
    await vi.advanceTimersByTimeAsync(0);
    expect(log).toContain("commit 1 calls 5 usd_micros 3 cpu_ms");
  });

  test("and cannot be recorded: its caller is told, its record follows, and those who wait hear of it", async () => {
    const { end, log, waiters } = open(AWAY, AWAY, AWAY, LANDED);
    const heard = waiters.next("call-1", new AbortController().signal);
    await expect(end(SUCCEEDED, CHARGE)).rejects.toMatchObject({
      ...{ code: "UNAVAILABLE", reason: "JOURNAL_UNAVAILABLE", metadata: { stage: "settle" } },
      message: expect.stringContaining("Do not send it again"),
    });
    await vi.advanceTimersByTimeAsync(10_000);
    await heard;
    expect(log.filter((line) => line === "record")).toHaveLength(4);
    expect(log.filter((line) => line.startsWith("commit"))).toHaveLength(1);
  });
});

describe("a call that did not run", () => {
  test("gives back what it held and takes back its question once its end stands", async () => {
    const { end, log, records } = open(LANDED);
    expect(await end(REFUSED, RELEASE)).toEqual({ kind: "ended", outcome: REFUSED });
    await vi.advanceTimersByTimeAsync(0);
    expect(log).toEqual(["record", "release", "cancelApproval"]);
    expect(records[0]).toMatchObject({ addLabels: [], charged: [] });
  });

  test.each([
    ["runs it", TAKEN],
    ["has ended it", ALREADY],
  ])("is left alone where another %s", async (_, verdict) => {
    const { end, log } = open(verdict);
    expect(await end({ kind: "cancelled", reason: "enough" }, RELEASE)).toEqual({ kind: "taken" });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(log).toEqual(["record"]);
  });

  test("is answered although it cannot be recorded, and gives back what it held when it is", async () => {
    const { end, log } = open(AWAY, AWAY, LANDED);
    expect(await end({ kind: "cancelled", reason: "enough" }, RELEASE)).toMatchObject({ kind: "ended" });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(log).toEqual(["record", "record", "record", "release", "cancelApproval"]);
  });

  test("is left alone where another turns out to run it once it can be recorded", async () => {
    const { end, log } = open(AWAY, TAKEN);
    await end(REFUSED, RELEASE);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(log).toEqual(["record", "record"]);
  });

  test("and held nothing undoes nothing", async () => {
    const { end, log } = open(LANDED);
    await end(REFUSED, { hold: "none", withdrawApproval: false });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(log).toEqual(["record"]);
  });
});
