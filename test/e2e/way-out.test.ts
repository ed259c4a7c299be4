import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { stringify } from "yaml";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { whyNoEngine } from "../../services/runner/container/test-engine.ts";
import { connectTo, refusalOf } from "../support/clients.ts";
import { startEmbedded } from "../support/interlock.ts";

const skipped = await whyNoEngine();
const TOKEN = "t0ken-t0ken-t0ken";
const CARD = "4111-1111-1111-1111";
const ASK_BOTH = "curl -sS http://api.example.com/a; curl -sS http://api.example.com/b; env";

/** An Interlock whose tools reach one server of the test's own, with a credential that they never see. */
async function open(rule: string, script = ASK_BOTH, obligations = "") {
  const folder = mkdtempSync(join(tmpdir(), "interlock-way-out-"));
  const seen: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    seen.push(request.headers.authorization);
    response.end(JSON.stringify({ you: request.headers.authorization, card: CARD }));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });
  for (const name of ["policies/tools", "secrets"]) mkdirSync(join(folder, name), { recursive: true });
  cpSync("policies/model.conf", join(folder, "policies/model.conf"));
  writeFileSync(join(folder, "policies/policy.csv"), `p, demo, *, *, allow, true, A test's., ${obligations}\n`);
  const total = { tenant: "demo", scope: "tenant", limit: 1_000_000 };
  const budgets = [
    { name: "bytes-out", unit: "egress_bytes", ...total },
    { name: "money", unit: "usd_micros", ...total },
  ];
  writeFileSync(join(folder, "policies/budgets.yaml"), stringify({ budgets }));
  writeFileSync(join(folder, "secrets/token"), TOKEN);
  const manifest = {
    ...{ name: "t.fetch", version: "1.0.0", description: "A test's.", impact: "low", arguments: { type: "object" } },
    sandbox: {
      kind: "container",
      image: "shell",
      command: ["bash", "-c", script],
    },
    egress: [rule],
    limits: { egress_bytes: 100_000 },
    price: { egress_bytes: 100_000, usd_micros: { fixed: 7, per_egress: { units: 3, per: 1_000 } } },
    secrets: [{ ref: "secret://file/token", to: { kind: "header", rule, name: "Authorization", format: "Bearer {}" } }],
  };
  writeFileSync(join(folder, "policies/tools/t.fetch.yaml"), stringify(manifest));
  const hosts = [
    { host: "api.example.com", port: 80, address: "127.0.0.1", address_port: (server.address() as AddressInfo).port },
  ];
  const runner = { secrets: { directory: join(folder, "secrets") }, egress: { hosts } };
  return { seen, config: { policies: join(folder, "policies"), runner } };
}

/** All that Interlock has written to its disk. */
function onDisk(state: string): string {
  const files = readdirSync(state, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.map(({ parentPath, name }) => readFileSync(join(parentPath, name), "latin1")).join("\n");
}

describe.skipIf(skipped !== "")(`a tool with a way out ${skipped}`, () => {
  test("reaches what it was granted with a credential it never sees, and its call's record says what it asked for", async () => {
    const { seen, config } = await open("GET api.example.com:80/a");
    await using running = await startEmbedded({ config });
    await using clients = connectTo(running);
    const { call } = await clients.agent.execute({ session: "s1", tool: "t.fetch", argumentsJson: "{}" });
    expect(call?.state).toBe(CallState.SUCCEEDED);
    expect(seen).toEqual([`Bearer ${TOKEN}`]);
    expect(call?.result?.stdout).toContain(`{"you":"[masked]","card":"${CARD}"}`);
    expect(call?.result?.stdout).toContain('"missing_rule":"GET api.example.com:80/b"');
    const { call: read } = await clients.agent.get({ ref: call?.ref ?? {} });
    expect(read?.result?.egress).toMatchObject([
      {
        kind: "http",
        host: "api.example.com",
        port: 80,
        method: "GET",
        path: "/a",
        rule: "GET api.example.com:80/a",
        refused: "",
        status: 200,
      },
      {
        kind: "http",
        host: "api.example.com",
        port: 80,
        method: "GET",
        path: "/b",
        rule: "",
        refused: "PATH_NOT_ALLOWED",
        status: 0,
      },
    ]);
    expect(read?.result?.usage?.egressBytes).toBeGreaterThan(0n);
    expect(JSON.stringify(read, (_, value) => (typeof value === "bigint" ? String(value) : value))).not.toContain(
      TOKEN,
    );
  });

  test("is charged for the bytes that went through it, as the runner measured them", async () => {
    const { config } = await open("api.example.com:80");
    await using running = await startEmbedded({ config });
    await using clients = connectTo(running);
    const { call } = await clients.agent.execute({ session: "s1", tool: "t.fetch", argumentsJson: "{}" });
    const bytes = call?.result?.usage?.egressBytes ?? 0n;
    expect(bytes).toBeGreaterThan(0n);
    const { budgets } = await clients.money.listBudgets({});
    expect(budgets.map(({ name, held, spent }) => ({ name, held, spent }))).toEqual([
      { name: "bytes-out", held: 0n, spent: bytes },
      { name: "money", held: 0n, spent: 7n + (bytes * 3n + 999n) / 1_000n },
    ]);
  });

  test("is not there at all when its rule is too wide: Interlock does not start, and says why", async () => {
    const { config } = await open("*.com:443");
    await expect(startEmbedded({ config })).rejects.toThrow(/too wide/);
  });

  test("does not run without its secret, and the refusal names the reference", async () => {
    const { seen, config } = await open("api.example.com:80");
    rmSync(join(config.runner.secrets.directory, "token"));
    await using running = await startEmbedded({ config });
    await using clients = connectTo(running);
    const answer = clients.agent.execute({ session: "s1", tool: "t.fetch", argumentsJson: "{}" });
    const said = await answer.then(
      ({ call }) => JSON.stringify(call?.refusal?.message),
      async () => (await refusalOf(answer)).message,
    );
    expect(said).toContain("secret://file/token is not there");
    expect(seen).toEqual([]);
  });
});

describe.skipIf(skipped !== "")(`under obligations a tool ${skipped}`, () => {
  const ONE_JSON = [
    "a=$(curl -sS http://api.example.com/a) b=$(curl -sS http://api.example.com/b)",
    `echo "{\\"a\\":\${a:-null},\\"b\\":\${b:-null}}"; echo '${CARD}' >&2`,
  ].join("; ");
  const REDACTED = "[redacted by policy]";

  test.each<[what: string, obligations: string, reached: string[], card: string | undefined]>([
    ["all that its manifest grants, where policy says no more", "", ["/a", "/b"], CARD],
    ["only what policy lets it", "egress=GET api.example.com:80/a", ["/a"], CARD],
    ["nothing, where policy takes its ways out", "egress=none", [], undefined],
    ["it, and what policy takes out of its answer is nowhere to be read", "redact=card", ["/a", "/b"], REDACTED],
    ["under both at once", "egress=GET api.example.com:80/a;redact=card", ["/a"], REDACTED],
  ])("reaches %s", async (_what, obligations, reached, card) => {
    const { seen, config } = await open("api.example.com:80", ONE_JSON, obligations);
    await using running = await startEmbedded({ config });
    await using clients = connectTo(running);
    const { call } = await clients.agent.execute({ session: "s1", tool: "t.fetch", argumentsJson: "{}" });
    expect(call?.state).toBe(CallState.SUCCEEDED);
    expect(seen).toHaveLength(reached.length);
    const said = JSON.parse(call?.result?.stdout ?? "") as Record<string, { card?: string } | null>;
    const cards = { a: said["a"]?.card, b: said["b"]?.card };
    expect(cards).toEqual({ a: card, b: reached.includes("/b") ? card : undefined });
    const isRedacted = obligations.includes("redact");
    expect(call?.result?.stderr.includes(CARD)).toBe(!isRedacted);
    const { call: read } = await clients.agent.get({ ref: call?.ref ?? {} });
    expect(read?.result).toEqual(call?.result);
    expect(read?.result?.egress.flatMap(({ refused, path }) => (refused === "" ? [path] : []))).toEqual(reached);
    expect(onDisk(running.state).includes(CARD)).toBe(!isRedacted);
  });
});
