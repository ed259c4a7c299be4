import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { DockerComposeEnvironment, Wait } from "testcontainers";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { runStory, STEPS } from "../../examples/story.ts";
import { SERVICE_NAMES } from "../../services/interlock.ts";
import { connectTo, eventually, heldOf } from "../support/clients.ts";
import type { Running } from "../support/interlock.ts";

/** The house as deploy/ builds it: five containers and NATS, each given only what it needs. */

const MINUTES = 60_000;
const DEPLOY = join(import.meta.dirname, "../../deploy");
const run = promisify(execFile);

/** Who signs, and who checks what was signed. */
const KEYS = {
  pdp: [],
  ledger: [],
  approvals: ["page.key", "people.yaml"],
  runner: ["signing.pub.pem"],
  broker: ["signing.pem"],
};

type Deployed = AsyncDisposable &
  Pick<Running, "address" | "keys" | "page"> & {
    /** What a command says inside a service's container. */
    inside(service: string, command: string[]): Promise<string>;
  };

async function deploy(): Promise<Deployed> {
  await run(join(DEPLOY, "build-image.sh"), [], { timeout: 3 * MINUTES });
  const stack = new AsyncDisposableStack();
  try {
    const secrets = mkdtempSync(join(tmpdir(), "interlock-compose-"));
    stack.defer(() => rmSync(secrets, { recursive: true, force: true }));
    await run(join(DEPLOY, "secrets.sh"), [secrets]);
    const project = `interlock-test-${randomUUID().slice(0, 8)}`;
    const up = await new DockerComposeEnvironment(DEPLOY, "compose.yaml")
      .withProjectName(project)
      .withClientOptions({ executable: { standalone: true, executablePath: "docker-compose" } })
      .withEnvironment({
        SECRETS_DIR: secrets,
        INTERLOCK_PORT: "0",
        INTERLOCK_PAGE_PORT: "0",
        DOCKER_GID: String(statSync("/var/run/docker.sock").gid),
        // The client starts with nothing but this environment.
        PATH: process.env["PATH"] ?? "",
      })
      .withAutoCleanup(false) // its reaper is an image of a registry
      .withDefaultWaitStrategy(Wait.forHealthCheck())
      .withStartupTimeout(MINUTES)
      .up();
    stack.defer(() => up.down({ removeVolumes: true, timeout: 5_000 }).then(() => {}));
    const credentials = parse(readFileSync(join(secrets, "credentials.yaml"), "utf8")) as Record<string, string>;
    const keyOf = (name: string) => credentials[name] ?? "";
    return {
      address: `127.0.0.1:${up.getContainer(`${project}_broker_1`).getMappedPort(7443)}`,
      page: `127.0.0.1:${up.getContainer(`${project}_approvals_1`).getMappedPort(7444)}`,
      keys: { agent: keyOf("demo-agent"), reviewer: keyOf("alice"), operator: keyOf("operator") },
      inside: async (service, command) => {
        const { output } = await up.getContainer(`${project}_${service}_1`).exec(command);
        return output.trim();
      },
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

/** The first page of whoever has this login link. It names the port of compose.yaml, and here that is another. */
async function inboxOf(page: string, link: string): Promise<string> {
  const login = new URL(link);
  expect(login.host).toBe("127.0.0.1:7444");
  const body = new URLSearchParams({ t: login.searchParams.get("t") ?? "" });
  const entered = await fetch(`http://${page}/login/link`, { method: "POST", body, redirect: "manual" });
  expect(entered.status).toBe(303);
  const cookie = entered.headers.getSetCookie()[0]?.split(";")[0] ?? "";
  return await (await fetch(`http://${page}/`, { headers: { cookie } })).text();
}

describe("five containers over NATS", () => {
  it("tell the whole story, each as nobody, on a file system it cannot write", { timeout: 5 * MINUTES }, async () => {
    await using deployed = await deploy();
    const lines: string[] = [];
    const { address, keys } = deployed;
    const print = (line: string) => lines.push(line);
    const result = await runStory({ address, agentKey: keys.agent, reviewerKey: keys.reviewer, print });
    const endings = Object.fromEntries(result.steps.map((step) => [step.name, step.kind]));
    expect(endings, lines.join("\n")).toEqual(Object.fromEntries(STEPS.map((name) => [name, "as-told"])));
    await using clients = connectTo(deployed);
    await eventually(
      () => heldOf(clients),
      (held) => Object.keys(held).length === 0,
    );
    expect(await inboxOf(deployed.page, (await clients.reviewer.createLoginLink({})).url)).toContain(
      "Nothing waits for you",
    );
    const probe =
      "id -u; touch /opt/interlock/x 2>&1 | grep -o 'Read-only'; grep -h CapEff /proc/self/status; ls /etc/interlock";
    for (const service of SERVICE_NAMES) {
      const said = (await deployed.inside(service, ["bash", "-c", probe])).split("\n");
      const given = [`${service}.yaml`, "keys.yaml", "nats-password", ...KEYS[service]];
      expect(new Set(said), service).toEqual(new Set(["10001", "Read-only", "CapEff:\t0000000000000000", ...given]));
    }
  });
});
