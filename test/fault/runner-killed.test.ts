import { randomUUID } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { stringify } from "yaml";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { ownerState } from "../../services/runner/container/owner.ts";
import { containersLabelled, whyNoEngine } from "../../services/runner/container/test-engine.ts";
import { connectTo } from "../support/clients.ts";
import { startApart } from "../support/interlock.ts";

/** The runner is killed by SIGKILL, again and again, under calls of every kind. */

const FULL = process.env["FULL"] === "1";
const CALLS = FULL ? 500 : 80;
const KILLS = FULL ? 10 : 2;
const AT_ONCE = 8;

const shell = (code: string, more: object = {}): object => ({
  kind: "container",
  image: "shell",
  command: ["bash", "-c", code],
  ...more,
});
const TOOLS: Readonly<Record<string, { readonly sandbox: object; readonly more?: object }>> = {
  "t.isolate": { sandbox: { kind: "isolate", code: "return input.n + 1" } },
  "t.quick": { sandbox: shell("jq .n") },
  "t.slow": { sandbox: shell("sleep 0.5; jq .n") },
  "t.flood": { sandbox: shell("head -c 3000000 /dev/zero | tr '\\0' x") },
  "t.fails": { sandbox: shell("exit 3") },
  "t.session": { sandbox: shell("echo >> lines; wc -l < lines", { lifetime: "session" }) },
  "t.forked": { sandbox: shell("setsid sleep 300 & disown; jq .n") },
  "t.way-out": {
    sandbox: shell("curl -sS http://nowhere.example.com/; jq .n"),
    more: { egress: ["api.example.com:80"] },
  },
  "t.python": {
    sandbox: {
      kind: "container",
      image: "python",
      command: ["python3", "-c", "import json,sys; print(json.load(sys.stdin)['n'])"],
    },
  },
};

function policies(): string {
  const folder = mkdtempSync(join(tmpdir(), "interlock-policies-"));
  cpSync("policies/model.conf", join(folder, "model.conf"));
  writeFileSync(join(folder, "policy.csv"), "p, demo, *, *, allow, true, A test's.\n");
  writeFileSync(join(folder, "budgets.yaml"), "budgets: []\n");
  mkdirSync(join(folder, "tools"));
  for (const [name, { sandbox, more }] of Object.entries(TOOLS)) {
    const about = {
      name,
      version: "1.0.0",
      description: "A test's.",
      impact: "low",
      arguments: { type: "object" },
      limits: { pids: 64 },
    };
    writeFileSync(join(folder, "tools", `${name}.yaml`), stringify({ ...about, sandbox, ...more }));
  }
  return folder;
}

/** What processes that are dead have left on this machine. */
function leftByTheDead(): string[] {
  const places = [tmpdir(), "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"];
  const names = places.flatMap((place) => {
    try {
      return readdirSync(place).map((name) => [place, name] as const);
    } catch {
      return [];
    }
  });
  return names
    .filter(
      ([, name]) =>
        /^interlock-[0-9a-f]{8}\.\d*-\d+-\d+$/.test(name) && ownerState(name.slice("interlock-".length)) === "dead",
    )
    .map(([place, name]) => join(place, name));
}

const nameOf = (state: CallState | undefined): string =>
  Object.entries(CallState).find(([, value]) => value === state)?.[0] ?? "";

const skipped = await whyNoEngine();

describe.skipIf(skipped !== "")(`a runner that is killed ${KILLS} times under ${CALLS} calls ${skipped}`, () => {
  test("loses no call, gives none two ends, and leaves nothing", { timeout: FULL ? 300_000 : 90_000 }, async () => {
    const folder = policies();
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const runnerId = `test-${randomUUID().slice(0, 8)}`;
    const config = {
      policies: folder,
      runner: { id: runnerId, warm_containers: 4, isolates: { workers: 2 } },
      loops: { exact_repeat_limit: 1000 },
    };
    await using running = await startApart({ config });
    await using clients = connectTo(running);
    const names = Object.keys(TOOLS);
    const session = (n: number): string => `s${n % 4}`;
    const ended = new Map<string, string>();
    const refused: string[] = [];
    let next = 0;
    const kills = Array.from({ length: KILLS }, (_, i) => Math.floor(((i + 0.5) * CALLS) / KILLS));
    let killing = Promise.resolve();
    const caller = async (): Promise<void> => {
      for (;;) {
        const n = next++;
        if (n >= CALLS) return;
        if (kills.includes(n)) killing = killing.then(() => running.kill("runner")).then(() => running.start("runner"));
        const tool = names[n % names.length] ?? "";
        const key = `k${n}`;
        try {
          const { call } = await clients.agent.execute({
            session: session(n),
            tool,
            argumentsJson: `{"n":${n}}`,
            idempotencyKey: key,
          });
          ended.set(call?.ref?.callId ?? "", nameOf(call?.state));
        } catch (error) {
          refused.push(`${tool} ${error instanceof Error ? error.message : error}`);
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, caller));
    await killing;

    // Every call that was answered has one end, the one it was answered with, and keeps it.
    const FINAL = ["SUCCEEDED", "FAILED", "REFUSED", "OUTCOME_UNKNOWN", "CANCELLED"];
    expect(ended.size + refused.length).toBe(CALLS);
    expect(refused).toEqual([]);
    expect([...ended.values()].filter((state) => !FINAL.includes(state))).toEqual([]);
    expect([...ended.values()].filter((state) => state === "SUCCEEDED").length).toBeGreaterThan(CALLS / 2);
    for (const [callId, state] of ended) {
      const { call } = await findCall(clients.agent, callId);
      expect(nameOf(call?.state)).toBe(state);
    }

    // A good runner still runs; the sessions' containers are its own, and go with it.
    const { call } = await clients.agent.execute({ session: "s9", tool: "t.quick", argumentsJson: '{"n":7}' });
    expect(call?.result?.resultJson).toBe("7");
    await running.kill("runner");
    await running.start("runner");
    const within = { timeout: 30_000, interval: 250 };
    await expect.poll(async () => (await containersLabelled(`interlock.runner=${runnerId}`)).length, within).toBe(0);
    await expect.poll(leftByTheDead, within).toEqual([]);
  });
});

async function findCall(agent: ReturnType<typeof connectTo>["agent"], callId: string) {
  for (const session of ["s0", "s1", "s2", "s3"]) {
    const found = await agent.get({ ref: { session, callId } }).catch(() => undefined);
    if (found !== undefined) return found;
  }
  throw new Error(`no session has the call ${callId}`);
}
