import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { connect } from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, it } from "vitest";
import { PermitClaimsSchema, RunnerService } from "../../proto/interlock/v1/runner_pb.ts";
import type { SignedSchema } from "../../proto/interlock/v1/types_pb.ts";
import { loadCatalog } from "../../services/broker/catalog.ts";
import { configSchema } from "../../services/shared/config.ts";
import { sha256Hex } from "../../services/shared/json.ts";
import { natsClient } from "../../services/shared/rpc/nats-client.ts";
import type { Client } from "../../services/shared/rpc/types.ts";
import { newSigningKeyPem, type SignedBytes, type Signer, signerFromPem } from "../../services/shared/signing.ts";
import { readSigner } from "../../services/shared/state-dir.ts";
import { refusalOf } from "../support/clients.ts";
import { type RunningApart, startApart } from "../support/interlock.ts";

/** A hostile service on the bus hands a real runner process what it likes. Only the broker's own permits run, once. */

let running: RunningApart;
let runner: Client<typeof RunnerService>;
let signer: Signer;
let boot: { runnerId: string; bootId: string };
const closing = new AsyncDisposableStack();
const tool = loadCatalog("policies/tools").find("math.compute");
const argumentsJson = '{"input":20,"program":"return input + 1"}';

beforeAll(async () => {
  running = closing.use(await startApart({ config: { runner: { containers: "off" } } }));
  const connection = await connect({ servers: running.natsUrl ?? "" });
  closing.defer(() => connection.close());
  runner = natsClient(RunnerService, connection, { caller: { kind: "service", name: "broker" } });
  signer = readSigner(configSchema.parse({ state: running.state }));
  const { runnerId, bootId } = await runner.describe({});
  boot = { runnerId, bootId };
});
afterAll(() => closing.disposeAsync());

type Claims = MessageInitShape<typeof PermitClaimsSchema>;

let last = 0;
function claimsOf(change: Partial<Claims> = {}): Uint8Array {
  const callId = `call-${++last}`;
  const claims = {
    permitId: `permit-${last}`,
    ref: { session: "s1", callId },
    principal: { tenant: "demo", agent: "demo-agent", session: "s1", user: "" },
    tool: "math.compute",
    toolDigest: tool?.digest ?? "",
    argumentsHash: sha256Hex(argumentsJson),
    limits: {},
    ...boot,
    expireTime: timestampFromMs(Date.now() + 10_000),
    ...change,
  };
  return toBinary(PermitClaimsSchema, create(PermitClaimsSchema, claims as Claims));
}

async function run(permit: MessageInitShape<typeof SignedSchema> | undefined, args = argumentsJson): Promise<string> {
  const request = { manifestJson: tool?.json ?? "", argumentsJson: args };
  let result = "";
  for await (const { kind } of runner.run(permit === undefined ? request : { ...request, permit })) {
    if (kind.case === "result") result = kind.value.resultJson;
  }
  return result;
}

const sign = (claims: Uint8Array, by: Signer = signer): Promise<SignedBytes> => by.sign("permit", claims);

it("runs what a good permit allows, once", async () => {
  const permit = await sign(claimsOf());
  expect(await run(permit)).toBe("21");
  expect((await refusalOf(run(permit))).reason).toBe("PERMIT_USED");
});

const bad: [
  what: string,
  permit: () => Promise<MessageInitShape<typeof SignedSchema> | undefined>,
  args: string,
  reason: string,
][] = [
  ["no permit", async () => undefined, argumentsJson, "PERMIT_MISSING"],
  [
    "one that is signed by another key",
    () => sign(claimsOf(), signerFromPem(newSigningKeyPem())),
    argumentsJson,
    "PERMIT_FORGED",
  ],
  ["one that was altered", altered, argumentsJson, "PERMIT_SIGNATURE_INVALID"],
  ["a receipt's signature", () => signer.sign("receipt", claimsOf()), argumentsJson, "PERMIT_SIGNATURE_INVALID"],
  [
    "one that has expired",
    () => sign(claimsOf({ expireTime: timestampFromMs(Date.now() - 1) })),
    argumentsJson,
    "PERMIT_EXPIRED",
  ],
  [
    "one that would last for ever",
    () => sign(claimsOf({ expireTime: timestampFromMs(Date.now() + 9e9) })),
    argumentsJson,
    "PERMIT_TOO_LONG",
  ],
  ["one for another boot", () => sign(claimsOf({ bootId: "earlier" })), argumentsJson, "PERMIT_WRONG_RUNNER"],
  ["one for another runner", () => sign(claimsOf({ runnerId: "other" })), argumentsJson, "PERMIT_WRONG_RUNNER"],
  ["one for other arguments", () => sign(claimsOf()), '{"input":1,"program":"return 7"}', "PERMIT_ARGUMENTS_MISMATCH"],
  [
    "one for another manifest",
    () => sign(claimsOf({ toolDigest: sha256Hex("other") })),
    argumentsJson,
    "PERMIT_TOOL_MISMATCH",
  ],
  ["one for another tool", () => sign(claimsOf({ tool: "shell.run" })), argumentsJson, "PERMIT_TOOL_MISMATCH"],
  [
    "one that names nobody",
    () => sign(claimsOf({ principal: { tenant: "", agent: "", session: "", user: "" } })),
    argumentsJson,
    "PERMIT_PRINCIPAL_MISSING",
  ],
  ["one that is no permit at all", () => sign(Buffer.from("garbage")), argumentsJson, "PERMIT_MALFORMED"],
];

/** In the name of another tenant. */
async function altered(): Promise<SignedBytes> {
  const signed = await sign(claimsOf());
  const claims = fromBinary(PermitClaimsSchema, signed.payload);
  claims.principal = { ...claimsPrincipal(claims), tenant: "other" };
  return { ...signed, payload: toBinary(PermitClaimsSchema, claims) };
}

function claimsPrincipal(claims: ReturnType<typeof fromBinary<typeof PermitClaimsSchema>>) {
  if (claims.principal === undefined) throw new Error("the permit names nobody");
  return claims.principal;
}

it.each(bad)("refuses %s, by its own reason", async (_, permit, args, reason) => {
  const refusal = await refusalOf(run(await permit(), args));
  expect([refusal.code, refusal.reason]).toEqual(["PERMISSION_DENIED", reason]);
});

it("lets exactly one of two simultaneous uses through", async () => {
  const permit = await sign(claimsOf());
  const both = await Promise.allSettled([run(permit), run(permit)]);
  expect(both.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
});
