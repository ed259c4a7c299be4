import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { SERVICE_NAMES, startInterlock } from "../../services/interlock.ts";
import { configSchema } from "../../services/shared/config.ts";
import { silentLog } from "../../services/shared/log.ts";
import { credentialsFile, credentialsSchema, initialiseState } from "../../services/shared/state-dir.ts";
import { readYaml } from "../../services/shared/yaml-file.ts";

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, "../..");
const PYTHON = "/usr/bin/python3";
const missing = spawnSync(PYTHON, ["-c", "import grpc, grpc_tools"]).status !== 0;

let folder = "";
let interlock: Awaited<ReturnType<typeof startInterlock>>;
let environment: NodeJS.ProcessEnv = {};

beforeAll(async () => {
  if (missing) return;
  folder = mkdtempSync(join(tmpdir(), "interlock-python-"));
  const config = configSchema.parse({
    listen: "127.0.0.1:0",
    state: join(folder, "state"),
    policies: join(ROOT, "policies"),
    runner: { containers: "off" },
  });
  initialiseState(config);
  interlock = await startInterlock(config, { services: SERVICE_NAMES, log: silentLog });
  await run(join(ROOT, "examples/python/generate.sh"), [join(folder, "stubs")]);
  const key = readYaml(credentialsFile(config.state), credentialsSchema).value["demo-agent"];
  environment = {
    PATH: process.env["PATH"],
    PYTHONPATH: join(folder, "stubs"),
    PYTHONDONTWRITEBYTECODE: "1",
    INTERLOCK_ADDRESS: interlock.address,
    INTERLOCK_KEY: key,
  };
});

afterAll(async () => {
  if (missing) return;
  await interlock?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const quickstart = (env: NodeJS.ProcessEnv) => run(PYTHON, [join(ROOT, "examples/python/quickstart.py")], { env });

it.skipIf(missing)(
  "runs the quick start from Python (needs apt packages python3-grpcio, python3-grpc-tools)",
  async () => {
    const { stdout } = await quickstart(environment);
    expect(stdout).toContain("math.compute: CALL_STATE_SUCCEEDED, result 42");
    expect(stdout).toContain("shell.run: PERMISSION_DENIED");
    expect(stdout).toContain("6: refused");
    expect(stdout.trimEnd().split("\n").at(-1)).toBe("All as it should be.");
  },
);

it.skipIf(missing)("ends with an error that says why when the key is unknown", async () => {
  const failed = quickstart({ ...environment, INTERLOCK_KEY: "ilk_nobody" });
  await expect(failed).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining("UNAUTHENTICATED") });
});
