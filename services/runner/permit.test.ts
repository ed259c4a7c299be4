import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PermitClaimsSchema, type RunRequest, RunRequestSchema } from "../../proto/interlock/v1/runner_pb.ts";
import { sha256Hex } from "../shared/json.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { newSigningKeyPem, type SignedBytes, signerFromPem, verifierOf } from "../shared/signing.ts";
import { MAX_PERMIT_MS, PermitChecker } from "./permit.ts";

const signer = signerFromPem(newSigningKeyPem());
const stranger = signerFromPem(newSigningKeyPem());
const NOW = 1_700_000_000_000;
const MANIFEST = '{"name":"test.tool"}';
const ARGUMENTS = '{"a":1}';

type Claims = MessageInitShape<typeof PermitClaimsSchema>;

function claimsOf(change: Claims = {}): Uint8Array {
  const claims = create(PermitClaimsSchema, {
    permitId: "p1",
    ref: { session: "s1", callId: "c1" },
    principal: { tenant: "demo", agent: "a", session: "s1", user: "" },
    tool: "test.tool",
    toolDigest: sha256Hex(MANIFEST),
    argumentsHash: sha256Hex(ARGUMENTS),
    limits: { wallMs: 5n, cpuMs: 4n, memoryBytes: 3n, outputBytes: 2n, pids: 1 },
    egress: ["example.com:443"],
    ...{ runnerId: "r1", bootId: "b1", expireTime: timestampFromMs(NOW + 1_000) },
    ...change,
  } as Claims);
  return toBinary(PermitClaimsSchema, claims);
}

const signed = (change: Claims = {}): Promise<SignedBytes> => signer.sign("permit", claimsOf(change));

function requestOf(permit: SignedBytes | undefined, change: { manifestJson?: string; argumentsJson?: string } = {}) {
  const sent = { manifestJson: MANIFEST, argumentsJson: ARGUMENTS, ...change };
  return create(RunRequestSchema, permit === undefined ? sent : { ...sent, permit });
}

function checkerOf(now: () => number = () => NOW): PermitChecker {
  return new PermitChecker({ runnerId: "r1", bootId: "b1", now, verifier: verifierOf([signer.publicKey]) });
}

function reasonOf(checker: PermitChecker, request: RunRequest): string {
  try {
    checker.claim(request);
    return "allowed";
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    expect([error.code, error.field]).toEqual(["PERMISSION_DENIED", "permit"]);
    return error.reason;
  }
}

it("a good permit says what its call may do", async () => {
  expect(checkerOf().claim(requestOf(await signed()))).toEqual({
    ...{
      callId: "c1",
      tenant: "demo",
      agent: "a",
      session: "s1",
      user: "",
      tool: "test.tool",
      toolDigest: sha256Hex(MANIFEST),
    },
    limits: { wallMs: 5, cpuMs: 4, memoryBytes: 3, outputBytes: 2, pids: 1 },
    egress: ["example.com:443"],
    depth: 0,
  });
});

const unknownField = Uint8Array.of(0xfa, 0x3e, 0x01, 0x78); // field 1007, a string

const bad: [what: string, request: () => Promise<RunRequest>, reason: string][] = [
  ["none", async () => requestOf(undefined), "PERMIT_MISSING"],
  ["one of no bytes", async () => requestOf(await signer.sign("permit", new Uint8Array())), "PERMIT_MISSING"],
  ["a stranger's", async () => requestOf(await stranger.sign("permit", claimsOf())), "PERMIT_FORGED"],
  [
    "a stranger's under the broker's name",
    async () => requestOf({ ...(await stranger.sign("permit", claimsOf())), keyId: signer.keyId }),
    "PERMIT_SIGNATURE_INVALID",
  ],
  [
    "one with other claims than were signed",
    async () => requestOf({ ...(await signed()), payload: claimsOf({ limits: { memoryBytes: 1n << 40n } }) }),
    "PERMIT_SIGNATURE_INVALID",
  ],
  [
    "a receipt's signature",
    async () => requestOf(await signer.sign("receipt", claimsOf())),
    "PERMIT_SIGNATURE_INVALID",
  ],
  [
    "no signature",
    async () => requestOf({ ...(await signed()), signature: new Uint8Array() }),
    "PERMIT_SIGNATURE_INVALID",
  ],
  [
    "bytes that are no claims",
    async () => requestOf(await signer.sign("permit", Buffer.from("{}"))),
    "PERMIT_MALFORMED",
  ],
  [
    "a claim that this build does not know",
    async () => requestOf(await signer.sign("permit", Buffer.concat([claimsOf(), unknownField]))),
    "PERMIT_MALFORMED",
  ],
  ["one without an id", async () => requestOf(await signed({ permitId: "" })), "PERMIT_MALFORMED"],
  ["another runner's", async () => requestOf(await signed({ runnerId: "r2" })), "PERMIT_WRONG_RUNNER"],
  ["an earlier boot's", async () => requestOf(await signed({ bootId: "b0" })), "PERMIT_WRONG_RUNNER"],
  ["an expired one", async () => requestOf(await signed({ expireTime: timestampFromMs(NOW) })), "PERMIT_EXPIRED"],
  [
    "one that never said when it expires",
    async () => requestOf(await signed({ expireTime: undefined as never })),
    "PERMIT_EXPIRED",
  ],
  [
    "one that is good for too long",
    async () => requestOf(await signed({ expireTime: timestampFromMs(NOW + MAX_PERMIT_MS + 1) })),
    "PERMIT_TOO_LONG",
  ],
  [
    "another manifest's",
    async () => requestOf(await signed(), { manifestJson: `${MANIFEST} ` }),
    "PERMIT_TOOL_MISMATCH",
  ],
  [
    "other arguments'",
    async () => requestOf(await signed(), { argumentsJson: '{"a":2}' }),
    "PERMIT_ARGUMENTS_MISMATCH",
  ],
  ["nobody's", async () => requestOf(await signed({ principal: undefined as never })), "PERMIT_PRINCIPAL_MISSING"],
  ["one for no call", async () => requestOf(await signed({ ref: undefined as never })), "PERMIT_PRINCIPAL_MISSING"],
  [
    "one whose call is of another session",
    async () => requestOf(await signed({ ref: { session: "s2", callId: "c1" } })),
    "PERMIT_PRINCIPAL_MISSING",
  ],
  [
    "one whose tenant is no name",
    async () => requestOf(await signed({ principal: { tenant: "../x", agent: "a", session: "s1" } })),
    "PERMIT_PRINCIPAL_MISSING",
  ],
];

describe("refused is", () => {
  it.each(bad)("%s", async (_, request, reason) => {
    const checker = checkerOf();
    expect(reasonOf(checker, await request())).toBe(reason);
    // What was refused has used up nothing.
    expect(reasonOf(checker, requestOf(await signed()))).toBe("allowed");
  });

  it("any permit with one bit changed", async () => {
    const good = await signed();
    fc.assert(
      fc.property(fc.constantFrom("payload", "signature"), fc.nat(), fc.nat(7), (part, at, bit) => {
        const bytes = Buffer.from(good[part]);
        const index = at % bytes.length;
        bytes[index] = (bytes[index] ?? 0) ^ (1 << bit);
        expect(reasonOf(checkerOf(), requestOf({ ...good, [part]: bytes }))).toBe("PERMIT_SIGNATURE_INVALID");
      }),
    );
  });

  it("the one at fault first, where several things are", async () => {
    const request = requestOf(await signed({ runnerId: "r2", expireTime: timestampFromMs(0) }), {
      argumentsJson: "{}",
    });
    expect(reasonOf(checkerOf(), request)).toBe("PERMIT_WRONG_RUNNER");
  });
});

describe("a permit is used once", () => {
  it("also under another signature, and with claims that differ", async () => {
    const checker = checkerOf();
    const again = [await signed(), await signed(), await signed({ egress: [] })];
    expect(again.map((permit) => reasonOf(checker, requestOf(permit)))).toEqual([
      "allowed",
      "PERMIT_USED",
      "PERMIT_USED",
    ]);
  });

  it("until it expires, also when the clock goes back after it is forgotten", async () => {
    let now = NOW;
    const checker = checkerOf(() => now);
    const first = requestOf(await signed());
    expect(reasonOf(checker, first)).toBe("allowed");
    now = NOW + 999;
    expect(reasonOf(checker, first)).toBe("PERMIT_USED");
    now = NOW + 1_000;
    expect(reasonOf(checker, first)).toBe("PERMIT_EXPIRED");
    const later = await signed({ permitId: "p2", expireTime: timestampFromMs(NOW + 2_000) });
    expect(reasonOf(checker, requestOf(later))).toBe("allowed"); // forgets the first
    now = NOW;
    expect(reasonOf(checker, first)).toBe("PERMIT_EXPIRED");
  });

  it("whatever others are used in between", async () => {
    const claims = fc.array(fc.record({ id: fc.nat(9), forMs: fc.integer({ min: 1, max: 400 }) }), { maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(claims, async (uses) => {
        let now = NOW;
        const checker = checkerOf(() => now);
        const usedUntil = new Map<number, number>();
        for (const { id, forMs } of uses) {
          now += 50;
          const expires = now + forMs;
          const permit = await signed({ permitId: `p${id}`, expireTime: timestampFromMs(expires) });
          const got = reasonOf(checker, requestOf(permit));
          // A permit that was used and has not expired is always refused; one never used is always allowed.
          if ((usedUntil.get(id) ?? 0) > now) expect(got).toBe("PERMIT_USED");
          if (!usedUntil.has(id)) expect(got).toBe("allowed");
          if (got === "allowed") usedUntil.set(id, expires);
        }
      }),
      { numRuns: 40 },
    );
  });
});
