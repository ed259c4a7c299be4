import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createListener } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { type MetricsExport, MetricsExportSchema } from "../contract/proto/interlock/test/v1/otlp_pb.ts";
import { type Clients, connectTo, eventually, refusalOf } from "../support/clients.ts";
import { startEmbedded } from "../support/interlock.ts";

/** The budgets' figures as those who collect them get them, after calls that really ran. */

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "interlock-figures-"));
  mkdirSync(join(folder, "tools"));
  cpSync("policies/model.conf", join(folder, "model.conf"));
  writeFileSync(join(folder, "policy.csv"), "p, demo, *, pay.dime, allow, true, Anyone may spend a dime.\n");
  writeFileSync(
    join(folder, "budgets.yaml"),
    "budgets:\n  - { name: quarter, tenant: demo, scope: tenant, unit: usd_micros, limit: 250_000, alerts: [80] }\n" +
      "  - { name: of-session, tenant: demo, scope: session, unit: calls, limit: 9 }\n",
  );
  writeFileSync(
    join(folder, "tools", "pay.dime.yaml"),
    "name: pay.dime\nversion: 1.0.0\ndescription: Costs a dime.\nimpact: low\narguments: { type: object }\n" +
      "price: { usd_micros: 100_000 }\nsandbox: { kind: builtin, name: noop }\n",
  );
});
afterAll(() => rmSync(folder, { recursive: true }));

const config = (telemetry: object) => ({
  ...{ policies: folder, telemetry },
  runner: { builtins: true, containers: "off" } as const,
});

/** Two dimes of a quarter; the third has no room. Then an operator gives 5 cents. */
async function spend(clients: Clients): Promise<void> {
  const dime = (i: number) => clients.agent.execute({ session: "s1", tool: "pay.dime", argumentsJson: `{"i":${i}}` });
  for (let i = 0; i < 2; i++) await dime(i);
  expect((await refusalOf(dime(2))).reason).toBe("BUDGET_EXHAUSTED");
  await clients.money.grantBudget({ key: "g1", budget: "quarter", value: 50_000n, reason: "A test's." });
}

/** The value by name and those labels that tell. */
const WANTED = {
  "interlock_budget_limit quarter": 250_000,
  "interlock_budget_granted quarter": 50_000,
  "interlock_budget_held quarter": 0,
  "interlock_budget_spent quarter": 200_000,
  "interlock_budget_available quarter": 100_000,
  "interlock_budget_signals threshold quarter": 1,
  "interlock_ledger_commands reserve accepted": 2,
  "interlock_ledger_commands reserve exhausted": 1,
  "interlock_ledger_commands commit accepted": 2,
};

const LABELS = ["kind", "command", "outcome", "budget"];
const keyOf = (name: string, labels: Readonly<Record<string, string>>) =>
  [name.replace(/_total$/, ""), ...LABELS.flatMap((label) => labels[label] ?? [])].join(" ");

describe("the figures of budgets", () => {
  it("are what was spent, held, granted and refused, when Prometheus scrapes them", async () => {
    const prometheus = `127.0.0.1:${await freePort()}`;
    await using running = await startEmbedded({ config: config({ prometheus }) });
    await using clients = connectTo(running);
    await spend(clients);
    const text = await (await fetch(`http://${prometheus}/metrics`)).text();
    const seen: Record<string, number> = {};
    for (const [, name = "", labels = "", value] of text.matchAll(/^(\w+)\{(.*)\} (\S+)$/gm)) {
      const of = Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, said]) => [key, said]));
      seen[keyOf(name, of)] = Number(value);
    }
    expect(seen).toMatchObject(WANTED);
    expect(text, "sessions have no series of their own").not.toContain("of-session");
  });

  it("are the same at an OpenTelemetry collector", async () => {
    const exports: MetricsExport[] = [];
    const collector = createServer(async (request, response) => {
      const parts: Buffer[] = [];
      for await (const part of request) parts.push(part);
      exports.push(fromBinary(MetricsExportSchema, Buffer.concat(parts)));
      response.setHeader("content-type", "application/x-protobuf").end();
    }).listen(0, "127.0.0.1");
    await once(collector, "listening");
    onTestFinished(() => void collector.close());
    const otlp = `http://127.0.0.1:${(collector.address() as AddressInfo).port}/v1/metrics`;
    await using running = await startEmbedded({ config: config({ otlp, otlp_every_ms: 100 }) });
    await using clients = connectTo(running);
    await spend(clients);
    const latest = () => Promise.resolve(readExport(exports.at(-1)));
    const seen = await eventually(latest, (figures) => figures["interlock_budget_granted quarter"] === 50_000);
    expect(seen).toMatchObject(WANTED);
    expect(Object.keys(seen).filter((key) => key.includes("of-session"))).toEqual([]);
  });
});

function readExport(of: MetricsExport | undefined): Record<string, number> {
  const seen: Record<string, number> = {};
  const scopes = of?.resourceMetrics.flatMap(({ scopeMetrics }) => scopeMetrics) ?? [];
  for (const { name, data } of scopes.flatMap(({ metrics }) => metrics)) {
    for (const { attributes, value } of data.value?.dataPoints ?? []) {
      const labels = Object.fromEntries(attributes.map((one) => [one.key, String(one.value?.value.value)]));
      seen[keyOf(name, labels)] = Number(value.value);
    }
  }
  return seen;
}

async function freePort(): Promise<number> {
  const server = createListener().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
