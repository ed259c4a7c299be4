import { create, toBinary } from "@bufbuild/protobuf";
import { PermitClaimsSchema, RunnerService } from "../../proto/interlock/v1/runner_pb.ts";
import type { RunResult } from "../../proto/interlock/v1/types_pb.ts";
import { openIsolateBackend } from "../../services/runner/isolate/backend.ts";
import { startRunner } from "../../services/runner/service.ts";
import { sha256Hex } from "../../services/shared/json.ts";
import { silentLog } from "../../services/shared/log.ts";
import { canonicalManifest, type Manifest, manifestSchema } from "../../services/shared/manifest.ts";
import { localClient } from "../../services/shared/rpc/local.ts";
import { service } from "../../services/shared/rpc/service.ts";
import { newSigningKeyPem, type SignedBytes, signerFromPem } from "../../services/shared/signing.ts";

/** A runner with isolates only, and a broker of the test's own, which signs permits for it and answers nested calls. */

export type IsolateTool = {
  readonly sandbox: { readonly code: string; readonly [key: string]: unknown };
  readonly limits?: Partial<Manifest["limits"]>;
  readonly egress?: readonly string[];
};

export type Signed = { readonly permit: SignedBytes; readonly manifestJson: string; readonly argumentsJson: string };

export type Answered = { readonly json: string } | { readonly code: number; readonly message: string };

export async function startIsolateRunner(options: { readonly workers?: number } = {}) {
  const signer = signerFromPem(newSigningKeyPem());
  const workers = { workers: options.workers ?? 8, warm: 1, per_tenant: 64, require_confinement: false };
  const backend = await openIsolateBackend({ workers, log: silentLog });
  const [capability] = await backend.describe();
  const runner = await startRunner({
    ...{ runnerId: "r", bootId: "b", backends: [backend], trustedKeys: [signer.publicKey], maxConcurrent: 256 },
    now: Date.now,
    log: silentLog,
  });
  const here = service(RunnerService, runner.handlers);
  const client = localClient<typeof RunnerService>(here, { caller: { kind: "service", name: "broker" } });
  let last = 0;
  return {
    client,
    enforced: capability?.enforced ?? [],
    missing: capability?.missing ?? [],

    async sign(tool: IsolateTool, args: unknown, { tenant = "demo", depth = 0 } = {}): Promise<Signed> {
      const { json: manifestJson, digest: toolDigest } = canonicalManifest(
        manifestSchema.parse({
          ...{ name: "test.program", version: "1.0.0", description: "A test's.", impact: "low" },
          ...{ arguments: { type: "object" }, limits: tool.limits ?? {} },
          egress: tool.egress ?? [],
          sandbox: { kind: "isolate", ...tool.sandbox },
        }),
      );
      const argumentsJson = JSON.stringify(args);
      const id = `c-${++last}`;
      const claims = create(PermitClaimsSchema, {
        ...{ permitId: id, ref: { session: "s", callId: id }, tool: "test.program", toolDigest, limits: {}, depth },
        egress: [...(tool.egress ?? [])],
        principal: { tenant, agent: "a", session: "s", user: "" },
        ...{ runnerId: "r", bootId: "b", argumentsHash: sha256Hex(argumentsJson) },
        expireTime: { seconds: BigInt(Math.floor(Date.now() / 1000) + 50), nanos: 0 },
      });
      return { permit: await signer.sign("permit", toBinary(PermitClaimsSchema, claims)), manifestJson, argumentsJson };
    },

    /** Runs it to its result; what its program calls is answered at once. */
    async run(
      request: Signed,
      {
        answer = (): Answered => ({ json: "{}" }),
        signal,
      }: { answer?: (call: { tool: string; argumentsJson: string }) => Answered; signal?: AbortSignal } = {},
    ): Promise<RunResult> {
      for await (const { kind } of client.run(request, signal === undefined ? {} : { signal })) {
        if (kind.case === "result") return kind.value;
        if (kind.case !== "call") continue;
        const given = answer(kind.value);
        const outcome =
          "json" in given
            ? ({ case: "resultJson", value: given.json } as const)
            : ({ case: "error", value: given } as const);
        // One that has ended meanwhile waits for no answer.
        void client.answer({ ticket: kind.value.ticket, outcome }).catch(() => {});
      }
      throw new Error("the run ended without a result");
    },

    [Symbol.asyncDispose]: () => runner[Symbol.asyncDispose](),
  };
}

export type IsolateRunner = Awaited<ReturnType<typeof startIsolateRunner>>;
