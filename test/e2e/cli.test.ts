import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildProgram } from "../../services/cli/main.ts";
import { type Running, startEmbedded } from "../support/interlock.ts";

/** The command line as a person uses it: what it prints, and how it exits. */

const exec = promisify(execFile);

type Said = { readonly code: number; readonly stdout: string; readonly stderr: string };

async function interlock(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Said> {
  const clean = { ...process.env };
  for (const name of ["ADDRESS", "KEY", "STATE", "DEBUG"]) delete clean[`INTERLOCK_${name}`];
  return await exec("bin/interlock", [...args], { env: { ...clean, ...env } }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }: Said) => ({ code, stdout, stderr }),
  );
}

/** Nothing that a person reads may be a stack trace, or something for their terminal to obey. */
function expectDecent(said: Said): void {
  const text = said.stdout + said.stderr;
  expect(text).not.toMatch(/^ +at .*:\d+:\d+\)?$/m);
  expect(text).not.toMatch(/[^\P{Cc}\n\t]/u);
}

let running: Running;
let scratch: string;
const here = (...args: string[]) => interlock(["--address", running.address, "--state", running.state, ...args]);
beforeAll(async () => {
  running = await startEmbedded({ config: { runner: { containers: "off" } } });
  scratch = mkdtempSync(join(tmpdir(), "interlock-cli-"));
});
afterAll(async () => {
  rmSync(scratch, { recursive: true, force: true });
  await running[Symbol.asyncDispose]();
});

const REFUND = '{"order_id":"ord-1001","amount_usd_micros":45000000,"reason":"broken"}';
const NOBODY = "01900000-0000-7000-8000-000000000000";

const COMMANDS: [args: string[], code: number, says: RegExp][] = [
  [["tools"], 0, /math\.compute +low +1 call, \$0\.0005(.*\n)*orders\.refund +high +needs approval/],
  [["call", "math.compute", '{"program":"return 6*7"}'], 0, /state +succeeded\n(.*\n)*result +42/],
  [["call", "math.compute", '{"program":"throw new Error(1)"}'], 1, /state +failed\n(.*\n)*ended +exit code 1/],
  [["call", "math.compute", "{"], 2, /ARGUMENTS_INVALID \(arguments_json\)/],
  [["call", "math.compute", "@/nonexistent"], 2, /arguments cannot be read/],
  [["call", "math.compute", "{}", "--wait", "soon"], 2, /--wait soon: give seconds/],
  [["call", "no.such_tool"], 2, /TOOL_UNKNOWN/],
  [["call"], 2, /missing required argument 'tool'/],
  [["call", "shell.run", '{"command":"id"}'], 3, /POLICY_DENIED/],
  [["call", "orders.refund", REFUND, "--session", "cli-people"], 4, /waits for a person/],
  [["approvals", "list"], 0, /orders\.refund/],
  [["approvals", "show", "nonsense"], 2, /FIELD_INVALID \(approval_id\)/],
  [["approvals", "approve", NOBODY], 2, /NOT_FOUND/],
  [["approvals", "reject", NOBODY], 2, /NOT_FOUND/],
  [["get", `cli/${NOBODY}`], 2, /CALL_NOT_FOUND/],
  [["get", "nonsense"], 2, /names no call/],
  [["watch", `cli/${NOBODY}`], 2, /CALL_NOT_FOUND/],
  [["watch", "a/b/c"], 2, /names no call/],
  [["cancel", `cli/${NOBODY}`], 2, /CALL_NOT_FOUND/],
  [["budgets"], 0, /demo-usd +tenant demo +total .* usd$/m],
  [["budgets", "statement", "--by", "agent"], 0, /^AGENT +CALLS +ESTIMATED|^Nothing was spent/],
  [["budgets", "statement", "--by", "tool", "--csv"], 0, /^tool,unit,calls,estimated,actual/],
  [["budgets", "statement", "--by", "moon"], 2, /FIELD_INVALID \(by\)/],
  [["budgets", "top", "--count", "0"], 2, /--count is a whole number/],
  [["budgets", "grant", "demo-usd", "1_000", "--reason", "A test."], 0, /has 1_000 more, once/],
  [["budgets", "grant", "demo-usd", "1.5", "--reason", "x"], 2, /whole number of units/],
  [["budgets", "grant", "eur", "1", "--reason", "x"], 2, /BUDGET_NOT_FOUND .*there are demo-usd/],
  [["budgets", "raise", "demo-agent-calls", "200_000", "--reason", "A test."], 0, /is 200_000 now/],
  [["budgets", "freeze", "agent:nobody", "--reason", "A test."], 0, /agent:nobody is frozen/],
  [["budgets", "freeze", "planet:earth", "--reason", "x"], 2, /SELECTOR_INVALID/],
  [["budgets", "thaw", "agent:somebody", "--reason", "x"], 2, /NOT_FROZEN/],
  [["budgets", "apply", "policies/budgets.yaml", "--reason", "x", "--dry-run"], 0, /It is sound/],
  [["budgets", "apply", "/nonexistent", "--reason", "x"], 2, /cannot be read/],
  [["budgets", "apply", "policies/airline/budgets.yaml", "--reason", "x"], 2, /BUDGETS_INVALID .*tenant airline/],
  [["budgets", "revisions"], 0, /budgets\.yaml +The file was changed/],
  [["kill", "list"], 0, /No kill switch is on/],
  [["kill", "on"], 2, /--reason <text>' not specified/],
  [["kill", "on", "planet:earth", "--reason", "x"], 2, /scope/],
  [["kill", "off", "planet:earth"], 2, /scope/],
  [["policy", "check"], 0, /is sound: \d+ rules, \d+ tools, \d+ budgets/],
  [["policy", "check", "policies/airline"], 0, /14 tools/],
  [["policy", "check", "/nonexistent"], 2, /\/nonexistent\/budgets\.yaml: The file cannot be read/],
  [["policy", "check", "policies/airline"], 0, /23 rules/],
  [["policy", "test"], 0, /^\d+ passed, 0 failed .* 100 % of \d+ rules covered/m],
  [
    ["policy", "test", "policies/airline"],
    0,
    /^30 passed, 0 failed .* 100 % of 23 rules covered, 100 % of 61 mutants noticed/m,
  ],
  [["policy", "test", "policies/bench"], 2, /policies\/bench: tests: There are no table tests/],
  [["policy", "test", "--min-noticed", "99"], 1, /--min-noticed asks for 99/],
  [["policy", "test", "--min-noticed", "x"], 2, /Give a number from 0 to 100/],
  [["policy", "log"], 0, /^\* 0 .*the files that the service was started with/m],
  [["policy", "show"], 0, /^# policy\.csv$/m],
  [["policy", "show", "7"], 2, /REVISION_NOT_FOUND/],
  [["policy", "show", "x"], 2, /Give the number of a revision/],
  [["policy", "diff", "0"], 0, /They say the same/],
  [["policy", "push"], 2, /--reason <text>' not specified/],
  [["policy", "push", "--dry-run", "--reason", "x"], 0, /0 lines added, 0 removed\nTable tests: \d+ passed, 0 failed/],
  [["policy", "push", "--reason", "x"], 2, /add --yes/],
  [["policy", "rollback", "--reason", "x"], 2, /REVISION_NOT_FOUND/],
  [["policy", "approve", NOBODY], 2, /CHANGE_NOT_FOUND/],
  [["policy", "approve", "x"], 2, /FIELD_INVALID \(change_id\)/],
  [["policy", "reject", NOBODY, "--reason", "x"], 2, /CHANGE_NOT_FOUND/],
  [
    ["policy", "explain", "shell.run", '{"command":"id"}', "--agent", "support"],
    0,
    /^Agent support may not call shell\.run\.\npolicy\.csv:\d+ decides \(deny\)(.*\n)*.*does not have role:operator-agent/,
  ],
  [["policy", "explain", "shell.run"], 2, /say who asks/],
  [["policy", "explain", "no.tool", "--agent", "a"], 2, /there is no tool/],
  [["policy", "explain", "shell.run", "--agent", "a", "--time", "soon"], 2, /write a time such as/],
  [["policy", "explain", "shell.run", "--agent", "a", "--label", "wet"], 2, /FIELD_INVALID \(facts\.labels\.0\)/],
  [["policy", "who-can", "shell.run"], 0, /^agent:operator-agent +allow/m],
  [["policy", "who-can", "no.tool"], 2, /TOOL_UNKNOWN/],
  [["policy", "what-can", "support"], 0, /^orders\.refund +require approval +if r\.args/m],
  [["policy", "what-can", "role:x"], 2, /FIELD_INVALID \(subject\)/],
  [
    ["policy", "simulate", "shell.run", "--agent", "operator-agent", "--policies", "policies"],
    0,
    /^active +allow(.*\n)*^candidate +allow/m,
  ],
  [["policy", "simulate", "shell.run", "--agent", "support"], 0, /^active +deny/m],
  [["policy", "simulate", "orders.refund", REFUND, "--agent", "support"], 0, /^active +require approval/m],
  [["policy", "replay"], 0, /Replayed \d+ decisions since .*: 0 would change/],
  [["policy", "replay", "--facts", "/nonexistent"], 2, /cannot be read/],
  [["policy", "replay", "--facts", "package.json"], 2, /package\.json:1: it is no interlock\.v1\.Facts/],
  [["policy", "shadow", "report"], 0, /There is no shadow/],
  [["policy", "sign"], 2, /--key <file>' not specified/],
  [["policy", "sign", "--key", "/nonexistent"], 2, /nonexistent: It cannot be used/],
  [["audit", "verify"], 0, /The journal is whole: \d+ records/],
  [["audit", "verify", "--nats", "nonsense"], 2, /nats:\/\//],
  [["audit", "tail", "--no-follow"], 0, /session\.demo\./],
  [["audit", "tail", "--no-follow", "--prefix", "nothing"], 0, /^$/],
  [["doctor"], 0, /ok +Node +v\d+/],
  [["health"], 0, /serving/],
  [["completion", "tcsh"], 2, /it is bash, zsh or fish/],
  [["down"], 0, /not running here/],
  [["nonsense"], 2, /unknown command 'nonsense'/],
  [["approvals"], 2, /Usage: interlock approvals/],
  [["up", "extra"], 2, /too many arguments/],
  [["up", "--config", "/nonexistent.yaml"], 2, /nonexistent\.yaml: The file cannot be read/],
  [["up", "--listen", "nonsense"], 2, /--listen: write host:port/],
  [["up", "--nats", "nonsense"], 2, /--nats: begin with nats:/],
  [["up", "--nats", "nats://127.0.0.1:1"], 5, /NATS at nats:\/\/127\.0\.0\.1:1 does not answer/],
  [["serve", "nonsense"], 2, /there is no service "nonsense"/],
  [["serve", "broker"], 2, /needs --nats/],
  [["--as", "nobody", "tools"], 2, /no key named nobody; it has demo-agent, alice, operator/],
  [["--as", "alice", "call", "math.compute"], 3, /ACCESS_DENIED: .* is for agents/],
  [["--as", "demo-agent", "kill", "list"], 3, /demo-agent|operator/],
  [["--address", "nonsense", "tools"], 2, /"nonsense" is no address/],
  [["--address", "127.0.0.1:99999", "tools"], 2, /is no address/],
  [["--address", "127.0.0.1:1", "tools"], 5, /127\.0\.0\.1:1 does not answer/],
  [["--address", "127.0.0.1:1", "health"], 5, /127\.0\.0\.1:1 does not answer/],
  [["--state", "/nonexistent", "tools"], 3, /there is no key/],
  [["--state", "/nonexistent", "audit", "verify"], 5, /cannot open the journal/],
  [["--version"], 0, /^\d+\.\d+\.\d+$/m],
];

const SHAPES: [args: string[], shape: unknown][] = [
  [["tools"], { tools: expect.arrayContaining([expect.objectContaining({ needsApproval: true })]) }],
  [
    ["budgets"],
    { budgets: expect.arrayContaining([expect.objectContaining({ name: "demo-usd", limit: "500000000" })]) },
  ],
  [["kill", "list"], { active: [] }],
  [["approvals", "list"], { approvals: expect.any(Array) }],
  [["audit", "verify"], { kind: "ok", records: expect.any(Number), streams: expect.any(Number) }],
  [["doctor"], expect.arrayContaining([{ name: "Node", ok: true, needed: true, notes: [expect.any(String)] }])],
  [["policy", "check"], { revision: expect.any(String), rules: expect.any(Number), tools: 8, budgets: 3 }],
  [["health"], { serving: true }],
  [["down"], { stopped: null }],
  [["call", "math.compute", '{"program":"return 1"}'], { state: "CALL_STATE_SUCCEEDED", tool: "math.compute" }],
];

const FAILURES: [args: string[], code: number, reason: string][] = [
  [["call", "math.compute", "{"], 2, "ARGUMENTS_INVALID"],
  [["call", "shell.run", '{"command":"id"}'], 3, "POLICY_DENIED"],
  [["call"], 2, "USAGE_INVALID"],
  [["nonsense"], 2, "USAGE_INVALID"],
  [["get", "nonsense"], 2, "USAGE_INVALID"],
  [["policy", "check", "/nonexistent"], 2, "FILE_INVALID"],
  [["--address", "127.0.0.1:1", "tools"], 5, "NOT_CONNECTED"],
  [["--state", "/nonexistent", "tools"], 3, "KEY_MISSING"],
  [["--state", "/nonexistent", "audit", "tail"], 5, "UNAVAILABLE"],
];

describe.concurrent("a command", { timeout: 60_000 }, () => {
  // Something to list, and something to read about.
  beforeAll(async () => {
    const asked = await here("call", "orders.refund", REFUND, "--session", "cli-waiting");
    expect(asked.code).toBe(4);
  }, 60_000);

  it.each(COMMANDS)("%j exits with %i and says what it has to", async (args, code, says) => {
    const said = await here(...args);
    expect([said.code, said.stdout + said.stderr]).toEqual([code, expect.stringMatching(says)]);
    expect(code === 0 || code === 1 || code === 4 ? said.stderr : said.stdout, "the other stream").toBe("");
    expectDecent(said);
  });

  it.each(SHAPES)("%j --json prints one JSON document", async (args, shape) => {
    const said = await here("--json", ...args);
    expect([said.code, said.stderr]).toEqual([0, ""]);
    const document: unknown = JSON.parse(said.stdout);
    expect(document).toEqual(Array.isArray(document) ? shape : expect.objectContaining(shape as object));
  });

  it.each(FAILURES)("%j --json fails with %i and a JSON error", async (args, code, reason) => {
    const said = await here("--json", ...args);
    expect([said.code, said.stdout]).toEqual([code, ""]);
    const { error } = JSON.parse(said.stderr) as { error: unknown };
    expect(error).toMatchObject({ reason, message: expect.stringMatching(/.{10}/) });
  });

  it("names the line of a file that is wrong", async () => {
    const folder = join(scratch, "policies");
    cpSync("policies", folder, { recursive: true, dereference: true });
    writeFileSync(join(folder, "budgets.yaml"), "budgets:\n  - name: demo\n    limit: -1\n");
    const said = await interlock(["policy", "check", folder]);
    expect([said.code, said.stderr]).toEqual([2, expect.stringMatching(/budgets\.yaml:\d+: budgets\.0\./)]);
    expectDecent(said);
  });

  it("prints records one JSON line each", async () => {
    const { stdout } = await here("--json", "audit", "tail", "--no-follow");
    const records = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { seq: number; stream: string; body: { kind?: string } });
    expect(records.length).toBeGreaterThan(2);
    for (const record of records) expect(record).toMatchObject({ seq: expect.any(Number), body: expect.anything() });
  });
});

describe("what an agent, a tool or a person wrote", () => {
  const ESCAPES = "\u001b[2J\u009b31m\u202egone\r\u0007";
  const program = JSON.stringify({ program: `return ${JSON.stringify(ESCAPES)}` });
  const broken = JSON.stringify({ program: `throw new Error(${JSON.stringify(`${ESCAPES}\nstate      succeeded`)})` });
  const refund = JSON.stringify({ order_id: "ord-1001", amount_usd_micros: 45_000_000, reason: ESCAPES });

  it.each([[program], [broken], [refund]])("never reaches the terminal as it is: %j", async (args) => {
    const tool = args === refund ? "orders.refund" : "math.compute";
    for (const json of [[], ["--json"]]) {
      const said = await here(...json, "call", tool, args);
      expectDecent(said);
      expect(said.stdout + said.stderr).not.toMatch(/\p{Cf}/u);
      expect(said.stdout.match(/^state +succeeded/gm)?.length ?? 0).toBe(json.length === 0 && args === program ? 1 : 0);
    }
  });

  it("never reaches a reviewer's or operator's terminal as it is", async () => {
    await here("call", "orders.refund", refund, "--session", "cli-escapes");
    const reason = `Stop.${ESCAPES}\ntool:everything  now  root  fine`;
    expect((await here("kill", "on", "tool:report.summarise", "--reason", reason)).code).toBe(0);
    const seen = [
      await here("approvals", "list"),
      await here("kill", "list"),
      await here("call", "report.summarise", '{"text":"One. Two.","sentences":1}'),
      await here("--json", "kill", "list"),
      await here("audit", "tail", "--no-follow"),
      await here("kill", "off", "tool:report.summarise"),
    ];
    for (const said of seen) expectDecent(said);
    expect(seen[1]?.stdout.trim().split("\n").length).toBe(2);
    expect(seen[2]?.stderr).toMatch(/KILL_SWITCH/);
    expect(seen[2]?.stderr).not.toMatch(/^tool:everything/m);
  });
});

it("takes an approval from the question to the end", async () => {
  const asked = await here("--json", "call", "orders.refund", REFUND, "--session", "cli-story");
  const call = JSON.parse(asked.stdout) as { ref: { session: string; callId: string }; approvalId: string };
  const shown = await here("approvals", "show", call.approvalId);
  expect(shown.stdout).toMatch(/^state +pending$/m);
  expect(shown.stdout).toMatch(/^order_id +“ord-1001”$/m);
  expect((await here("approvals", "approve", call.approvalId, "--comment", "Fine.")).stdout).toMatch(/alice approved/);
  const watched = await here("watch", `${call.ref.session}/${call.ref.callId}`);
  expect([watched.code, watched.stdout]).toEqual([0, expect.stringContaining("succeeded")]);
  const got = await here("get", `${call.ref.session}/${call.ref.callId}`);
  expect([got.code, got.stdout]).toEqual([0, expect.stringMatching(/^state +succeeded$/m)]);
  const again = await here("approvals", "reject", call.approvalId, "--comment", "Late.");
  expect([again.code, again.stderr]).toEqual([3, expect.stringContaining("APPROVAL_CONSUMED")]);
});

it("lets a person say no, and the agent cancel", async () => {
  const asked = await here("--json", "call", "orders.refund", REFUND, "--session", "cli-no");
  const call = JSON.parse(asked.stdout) as { ref: { session: string; callId: string }; approvalId: string };
  expect((await here("approvals", "reject", call.approvalId, "--comment", "No wire.")).code).toBe(0);
  const watched = await here("watch", `${call.ref.session}/${call.ref.callId}`);
  expect([watched.code, watched.stdout]).toEqual([3, expect.stringContaining("No wire.")]);

  const other = JSON.parse((await here("--json", "call", "orders.refund", REFUND, "--session", "cli-gone")).stdout) as {
    ref: { session: string; callId: string };
  };
  const cancelled = await here("cancel", `${other.ref.session}/${other.ref.callId}`, "--reason", "Never mind.");
  expect([cancelled.code, cancelled.stdout]).toEqual([0, expect.stringMatching(/^state +cancelled$/m)]);
});

describe("a policy changed by hand", () => {
  const replaceIn = (file: string, from: string, to: string) => {
    const text = readFileSync(file, "utf8");
    expect(text).toContain(from);
    writeFileSync(file, text.replaceAll(from, to));
  };

  it("is shown before it is live, is live at once, and rolls back", async () => {
    const dir = join(scratch, "policies");
    cpSync("policies", dir, { recursive: true, dereference: true });
    const small = REFUND.replace("45000000", "15000000");
    await here("call", "orders.refund", small, "--session", "cli-policy");
    replaceIn(join(dir, "policy.csv"), "20000000", "10000000");
    const failing = await here("policy", "push", dir, "--reason", "Ten.", "--yes");
    expect([failing.code, failing.stdout]).toEqual([1, expect.stringContaining(`FAILED ${dir}/tests/demo.yaml:`)]);
    expect(failing.stdout).toMatch(
      /1 x agent:demo-agent orders\.refund: allow \(policy\.csv:\d+\) -> require approval \(policy\.csv:\d+\)/,
    );
    expect(failing.stderr).toMatch(/1 table tests fail; nothing was changed/);

    replaceIn(join(dir, "tests/demo.yaml"), "20000000", "10000000");
    const pushed = await here("policy", "push", dir, "--reason", "Ten.", "--yes");
    expect([pushed.code, pushed.stdout]).toEqual([0, expect.stringMatching(/^Active: revision 1 /m)]);
    expect((await here("call", "orders.refund", small, "--session", "cli-policy-2")).code).toBe(4);
    expect((await here("policy", "diff", "0", "1")).stdout).toMatch(/^\+ policy\.csv:\d+ .*<= 10000000/m);
    expect((await here("policy", "log")).stdout).toMatch(/^\* 1 .* operator +\+2 -2 +Ten\.$/m);
    const back = await here("policy", "rollback", "--reason", "No, twenty.");
    expect([back.code, back.stdout]).toEqual([0, expect.stringMatching(/^Active: revision 0 /m)]);
    for (const said of [failing, pushed, back]) expectDecent(said);
  });

  it("of another tenant is refused line by line", async () => {
    const said = await here("policy", "push", "policies/airline", "--reason", "x", "--yes");
    expect([said.code, said.stderr]).toEqual([2, expect.stringContaining("nothing was changed")]);
    expect(said.stdout).toMatch(/^error: policies\/airline\/policy\.csv:8: tenant: This is tenant airline's/m);
  });

  it("writes JUnit that holds every test", async () => {
    const file = join(scratch, "junit.xml");
    expect((await here("policy", "test", "--junit", file)).code).toBe(0);
    const xml = readFileSync(file, "utf8");
    const tests = Number(/<testsuites name="interlock policy test" tests="(\d+)" failures="0">/.exec(xml)?.[1]);
    expect(tests).toBeGreaterThan(10);
    expect(xml.match(/<testcase /g)).toHaveLength(tests);
  });
});

it("stops and lets through", async () => {
  expect((await here("kill", "on", "tool:orders.lookup", "--reason", "A test.")).stdout).toMatch(/operator +A test\./);
  const stopped = await here("call", "orders.lookup", '{"order_id":"ord-1001"}');
  expect([stopped.code, stopped.stderr]).toEqual([3, expect.stringContaining("KILL_SWITCH")]);
  expect((await here("kill", "off", "tool:orders.lookup")).code).toBe(0);
  expect((await here("call", "orders.lookup", '{"order_id":"ord-1001"}')).code).toBe(0);
});

describe("`up`", () => {
  const at = (state: string, ...args: string[]) => interlock(["--state", join(scratch, state), ...args]);

  it("goes on in the background, once, until it is told to stop", { timeout: 60_000 }, async () => {
    try {
      const first = await at("one", "up", "--detach", "--listen", "127.0.0.1:0");
      expect([first.code, first.stderr]).toEqual([0, ""]);
      const address = /listens on (\S+) \(process/.exec(first.stdout)?.[1] ?? "";
      const second = await at("one", "--json", "up", "--detach");
      expect([second.code, JSON.parse(second.stdout)]).toMatchObject([0, { address, started: false }]);
      // Its state directory says where it listens, so nobody has to.
      expect((await at("one", "tools")).stdout).toContain("math.compute");

      const elsewhere = await at("one", "up", "--detach", "--listen", "127.0.0.1:1");
      expect([elsewhere.code, elsewhere.stderr]).toEqual([2, expect.stringContaining(`listens on ${address}`)]);
      for (const detach of [[], ["--detach"]]) {
        const taken = await at("two", "up", "--listen", address, ...detach);
        expect([taken.code, taken.stderr]).toEqual([5, expect.stringMatching(/the port is in use.*--listen/)]);
        expectDecent(taken);
      }
      const beside = await at("one", "up", "--listen", "127.0.0.1:0");
      expect([beside.code, beside.stderr]).toEqual([5, expect.stringContaining("another process writes to it")]);
      expectDecent(beside);
    } finally {
      const stopped = await at("one", "down");
      expect([stopped.code, stopped.stdout]).toEqual([0, "Stopped.\n"]);
    }
    expect((await at("one", "down")).stdout).toContain("not running");
  });

  it("says in a line what is wrong with its state directory", async () => {
    writeFileSync(join(scratch, "file"), "");
    const said = await at("file/state", "up", "--listen", "127.0.0.1:0");
    expect([said.code, said.stderr]).toEqual([5, expect.stringContaining("ENOTDIR")]);
    expectDecent(said);
  });
});

/** Every command, as `approvals list`. */
function* commandPaths(command = buildProgram(), path = ""): Generator<string> {
  for (const child of command.commands) {
    const name = path === "" ? child.name() : `${path} ${child.name()}`;
    yield name;
    yield* commandPaths(child, name);
  }
}

describe("what is written about the commands", () => {
  const guide = readFileSync("docs/cli.md", "utf8");

  it("names every command, and every exit code as the help does", async () => {
    for (const path of commandPaths()) expect(guide, path).toContain(`interlock ${path}`);
    const { stdout } = await interlock(["--help"]);
    const codes = [...stdout.matchAll(/^ {2}(\d+) +(.*)$/gm)];
    expect(codes.map(([, code]) => code)).toEqual(["0", "1", "2", "3", "4", "5", "70"]);
    for (const [, code, meaning] of codes) expect(guide).toMatch(new RegExp(`\\| ${code} +\\| ${meaning} *\\|`));
  });
});

describe("completion", () => {
  it.each(["bash", "zsh", "fish"])("in %s names every command", async (shell) => {
    const { code, stdout } = await interlock(["completion", shell]);
    expect(code).toBe(0);
    for (const path of commandPaths()) for (const word of path.split(" ")) expect(stdout).toContain(word);
  });

  it.each([
    [["a"], ["approvals", "audit"]],
    [
      ["approvals", ""],
      ["list", "show", "approve", "reject"],
    ],
    [["--state", "approvals", "kil"], ["kill"]],
    [
      ["--json", "kill", "o"],
      ["on", "off"],
    ],
    [["call", "math.compute", "--se"], ["--session"]],
    [["completion", "bash", "--st"], ["--state"]],
  ])("in bash follows the words so far: %j", async (words, next) => {
    const file = join(scratch, "completion.bash");
    writeFileSync(file, (await interlock(["completion", "bash"])).stdout);
    await exec("bash", ["-n", file]);
    const script = `source ${file}; COMP_WORDS=(interlock "$@"); COMP_CWORD=$#; _interlock; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout } = await exec("bash", ["-c", script, "bash", ...words]);
    expect(stdout.trim().split("\n")).toEqual(expect.arrayContaining(next));
    if (words.at(-1) !== "") expect(stdout.trim().split("\n").length).toBe(next.length);
  });
});
