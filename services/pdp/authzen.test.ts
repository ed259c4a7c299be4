import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { authenticator } from "../shared/identity.ts";
import { silentLog } from "../shared/log.ts";
import { hashKey } from "../shared/state-dir.ts";
import { type AuthzenServer, startAuthzen } from "./authzen-server.ts";
import { POLICIES, withPolicyDir } from "./fixture.ts";
import { openPdp, TOOLS } from "./service-fixture.ts";

/** AuthZEN 1.0 over a real socket: the interop vectors, and a row for each rule of the certification scenario. */

const DATA = join(POLICIES, "../test/data/authzen-todo");
const SHOP = `p, shop, agent:clerk, orders.lookup, allow, true, Clerks look up.
p, shop, agent:clerk, orders.refund, allow, r.args.amount <= 5, Small refunds., wall_ms=100
p, shop, agent:clerk, mail.send, require_approval, true, A person looks at mail.`;
const PEOPLE = ["todo", "cert", "shop"];
const keyOf = (name: string) => `ilk_${name}_0123456789`;

const stack = new AsyncDisposableStack();
let server: AuthzenServer;
beforeAll(async () => {
  const read = (name: string) => readFileSync(join(DATA, name), "utf8");
  const files = { "todo.csv": read("todo.csv"), "certification.csv": read("certification.csv"), "shop.csv": SHOP };
  const pdp = stack.use(await withPolicyDir(files, openPdp));
  const person = { kind: "person" as const, name: "p", groups: [] };
  const authenticate = authenticator([
    ...PEOPLE.map((tenant) => ({ ...person, sha256: hashKey(keyOf(tenant)), tenant, roles: ["operator" as const] })),
    { ...person, sha256: hashKey(keyOf("reviewer")), tenant: "cert", roles: ["reviewer" as const] },
  ]);
  const options = { listen: "127.0.0.1:0", baseUrl: undefined, tls: undefined, authenticate, pdp, tools: TOOLS };
  server = stack.use(await startAuthzen({ ...options, now: Date.now, log: silentLog }));
});
afterAll(() => stack.disposeAsync());

type Said = { readonly status: number; readonly headers: Headers; readonly text: string; readonly json: unknown };

async function ask(
  path: string,
  body: unknown,
  change: { tenant?: string; headers?: Record<string, string>; raw?: string; method?: string } = {},
): Promise<Said> {
  const { tenant = "cert", headers = {}, method = "POST" } = change;
  const sent = { authorization: `Bearer ${keyOf(tenant)}`, "content-type": "application/json", ...headers };
  const response = await fetch(server.url + path, {
    method,
    headers: sent,
    ...(method === "POST" ? { body: change.raw ?? JSON.stringify(body) } : {}),
  });
  const text = await response.text();
  const isJson = response.headers.get("content-type") === "application/json";
  return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : undefined };
}

const EVALUATION = "/access/v1/evaluation";
const EVALUATIONS = "/access/v1/evaluations";
const decisionOf = ({ json }: Said) => (json as { decision?: boolean }).decision;
const decisionsOf = ({ json }: Said) =>
  (json as { evaluations: { decision: boolean }[] }).evaluations.map(({ decision }) => decision);

describe("the 43 vectors of the Todo scenario", () => {
  const vectors = JSON.parse(readFileSync(join(DATA, "decisions.json"), "utf8")) as {
    evaluation: { request: { action: { name: string } }; expected: boolean }[];
    evaluations: { request: object; expected: { decision: boolean }[] }[];
  };

  test("are all there", () => {
    expect([vectors.evaluation.length, vectors.evaluations.length]).toEqual([40, 3]);
  });

  test.each(vectors.evaluation.map((vector, i) => [i, vector.request.action.name, vector] as const))(
    "evaluation %i: %s",
    async (_i, _name, { request, expected }) => {
      const said = await ask(EVALUATION, request, { tenant: "todo" });
      expect([said.status, decisionOf(said)]).toEqual([200, expected]);
    },
  );

  test.each(vectors.evaluations.map((vector, i) => [i, vector] as const))(
    "batch %i",
    async (_i, { request, expected }) => {
      expect(decisionsOf(await ask(EVALUATIONS, request, { tenant: "todo" }))).toEqual(
        expected.map(({ decision }) => decision),
      );
    },
  );
});

const alice = { type: "user", id: "alice" };
const bob = { type: "user", id: "bob" };
const admin = { ...bob, properties: { role: "admin" } };
const record = { type: "record", id: "record-1" };
const archived = { type: "record", id: "record-2", properties: { status: "archived" } };
const does = (name: string, properties?: object) => ({ name, ...(properties && { properties }) });
const read = { subject: alice, action: does("read"), resource: record };

describe("certification, basic", () => {
  test.each<[id: string, request: object, want: boolean]>([
    ["2.2.1 permit", read, true],
    ["2.2.2 deny", { subject: bob, action: does("write"), resource: record }, false],
    ["2.2.3 with a context", { ...read, context: { time: "2025-06-27T18:03-07:00", ip: "192.168.1.1" } }, true],
    ["2.2.4 deny by a property of the resource", { subject: alice, action: does("write"), resource: archived }, false],
    ["2.2.5 permit by a property of the subject", { subject: admin, action: does("write"), resource: archived }, true],
    [
      "2.2.6 permit by a property of the action",
      { subject: alice, action: does("delete", { soft: true }), resource: record },
      true,
    ],
    [
      "2.2.7 deny by a property of the action",
      { subject: alice, action: does("delete", { soft: false }), resource: record },
      false,
    ],
    [
      "2.2.8 with properties that nothing reads",
      {
        subject: { ...alice, properties: { department: "Sales", role: "manager" } },
        action: does("read", { method: "GET" }),
        resource: { ...record, properties: { status: "active", owner: "bob" } },
      },
      true,
    ],
    ["2.2.9 with fields that are unknown", { ...read, foo: "bar", futureField: { nested: true } }, true],
    ["rule 2", { subject: alice, action: does("write"), resource: record }, true],
    ["rule 3", { subject: bob, action: does("read"), resource: record }, true],
  ])("%s", async (_id, request, want) => {
    const said = await ask(EVALUATION, request);
    expect([said.status, said.headers.get("content-type"), decisionOf(said)]).toEqual([200, "application/json", want]);
    // 2.6: the same each time.
    for (let i = 0; i < 3; i++) expect(decisionOf(await ask(EVALUATION, request))).toBe(want);
  });

  test.each<[id: string, request: object, field: string]>([
    ["2.4.1 no subject", { action: does("read"), resource: record }, "subject"],
    ["2.4.1 no action", { subject: alice, resource: record }, "action"],
    ["2.4.1 no resource", { subject: alice, action: does("read") }, "resource"],
    ["2.4.2 no subject.type", { ...read, subject: { id: "alice" } }, "subject.type"],
    ["2.4.2 no subject.id", { ...read, subject: { type: "user" } }, "subject.id"],
    ["2.4.2 no action.name", { ...read, action: {} }, "action.name"],
    ["2.4.2 no resource.type", { ...read, resource: { id: "record-1" } }, "resource.type"],
    ["2.4.2 no resource.id", { ...read, resource: { type: "record" } }, "resource.id"],
    ["2.4.6 a subject that is a text", { ...read, subject: "alice" }, "subject"],
    ["2.4.6 a name that is a number", { ...read, action: { name: 123 } }, "action.name"],
  ])("%s is a 400 that names the field", async (_id, request, field) => {
    const said = await ask(EVALUATION, request);
    expect([said.status, said.text]).toEqual([
      400,
      expect.stringMatching(new RegExp(`^${field.replace(".", "\\.")}: .+\\.$`)),
    ]);
  });

  test.each<[id: string, change: Parameters<typeof ask>[2]]>([
    ["2.4.3 another content type", { headers: { "content-type": "text/plain" } }],
    ["2.4.4 no JSON", { raw: "{" }],
    ["2.4.5 nothing", { raw: "" }],
    ["a key twice", { raw: '{"subject":{},"subject":{}}' }],
  ])("%s is a 400", async (_id, change) => {
    expect((await ask(EVALUATION, read, change)).status).toBe(400);
  });

  test("2.5 X-Request-ID comes back, and none is no fault", async () => {
    const id = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716";
    for (const body of [read, {}]) {
      expect((await ask(EVALUATION, body, { headers: { "x-request-id": id } })).headers.get("x-request-id")).toBe(id);
    }
    expect((await ask(EVALUATION, read)).status).toBe(200);
  });
});

describe("certification, batch", () => {
  const write = does("write");
  test.each<[id: string, request: object, want: (boolean | undefined)[]]>([
    [
      "3.2.1 an array",
      {
        subject: alice,
        action: does("read"),
        evaluations: [{ resource: record }, { resource: { ...record, id: "record-2" } }],
      },
      [true, true],
    ],
    [
      "3.2.2 in order",
      { subject: bob, resource: record, evaluations: [{ action: does("read") }, { action: write }] },
      [true, false],
    ],
    [
      "3.2.3 with properties",
      {
        subject: alice,
        action: write,
        evaluations: [{ resource: { ...record, properties: { status: "active" } } }, { resource: archived }],
      },
      [true, false],
    ],
    [
      "3.2.4 with properties of subjects",
      { action: write, resource: archived, evaluations: [{ subject: alice }, { subject: admin }] },
      [false, true],
    ],
    [
      "3.2.5 without defaults",
      { evaluations: [read, { subject: bob, action: write, resource: record }] },
      [true, false],
    ],
    [
      "3.2.6 with a context to inherit",
      { ...read, context: { time: "1" }, evaluations: [{}, { context: { source: "batch-override" } }] },
      [true, true],
    ],
    [
      "3.2.7 with a type to fall back on",
      {
        subject: alice,
        action: write,
        resource: { type: "record" },
        evaluations: [{ resource: { id: "record-1", properties: { status: "active" } } }, { resource: archived }],
      },
      [true, false],
    ],
    [
      "3.4.1 one that lacks its resource",
      { subject: alice, action: does("read"), evaluations: [{ resource: record }, {}] },
      [true, false],
    ],
  ])("%s", async (_id, request, want) => {
    const said = await ask(EVALUATIONS, request);
    expect([said.status, decisionsOf(said), decisionOf(said)]).toEqual([200, want, undefined]);
  });
});

describe("certification, batch: errors and semantics", () => {
  test("3.4.1 an item that is wrong says so in its own context", async () => {
    const { json } = await ask(EVALUATIONS, { subject: alice, action: does("read"), evaluations: [{}] });
    expect(json).toEqual({
      evaluations: [
        { decision: false, context: { error: { status: 400, message: expect.stringMatching(/^resource: /) } } },
      ],
    });
  });

  test.each([
    ["3.4.2 no array", read],
    ["3.4.3 an empty one", { ...read, evaluations: [] }],
  ])("%s is a single evaluation", async (_id, request) => {
    const { status, json } = await ask(EVALUATIONS, request);
    expect([status, json]).toEqual([200, expect.objectContaining({ decision: true })]);
  });

  test.each<[semantic: string | undefined, want: boolean[]]>([
    [undefined, [true, false, true]],
    ["execute_all", [true, false, true]],
    ["deny_on_first_deny", [true, false]],
    ["permit_on_first_permit", [true]],
  ])("semantic %s", async (semantic, want) => {
    const evaluations = ["read", "write", "read"].map((name) => ({ action: does(name) }));
    const options = semantic === undefined ? {} : { options: { evaluations_semantic: semantic, other: 1 } };
    expect(decisionsOf(await ask(EVALUATIONS, { subject: bob, resource: record, evaluations, ...options }))).toEqual(
      want,
    );
  });

  test("a semantic that is unknown is a 400", async () => {
    const said = await ask(EVALUATIONS, { evaluations: [read], options: { evaluations_semantic: "best_effort" } });
    expect([said.status, said.text]).toEqual([
      400,
      expect.stringMatching(/^options\.evaluations_semantic: use execute_all/),
    ]);
  });
});

test("certification, discovery: 6.2 and 6.3, without a key", async () => {
  const response = await fetch(`${server.url}/.well-known/authzen-configuration`);
  expect([response.status, response.headers.get("content-type")]).toEqual([200, "application/json"]);
  expect(await response.json()).toEqual({
    policy_decision_point: server.url,
    access_evaluation_endpoint: `${server.url}/access/v1/evaluation`,
    access_evaluations_endpoint: `${server.url}/access/v1/evaluations`,
    search_subject_endpoint: `${server.url}/access/v1/search/subject`,
    search_resource_endpoint: `${server.url}/access/v1/search/resource`,
    search_action_endpoint: `${server.url}/access/v1/search/action`,
  });
});

describe("searches, where they can be answered", () => {
  const search = (what: string, body: object, tenant = "cert") => ask(`/access/v1/search/${what}`, body, { tenant });
  test.each<[name: string, what: string, body: object, want: object[], tenant?: string]>([
    [
      "4.2.1 who may read",
      "subject",
      { subject: { type: "user" }, action: does("read"), resource: record },
      [alice, bob],
    ],
    [
      "4.5.1 with a page",
      "subject",
      { subject: { type: "user" }, action: does("read"), resource: record, page: { limit: 1 } },
      [alice, bob],
    ],
    ["4.4.1 what Alice may do", "action", { subject: alice, resource: record }, [{ name: "read" }, { name: "write" }]],
    [
      "4.4.3 what an admin may do",
      "action",
      { subject: admin, resource: archived },
      [{ name: "read" }, { name: "write" }],
    ],
    ["4.6.1 somebody unknown", "action", { subject: { type: "user", id: "nobody" }, resource: record }, []],
    ["4.6.2 a type unknown", "subject", { subject: { type: "spaceship" }, action: does("read"), resource: record }, []],
    ["resources of a type whose members are not ours", "resource", { ...read, resource: { type: "record" } }, []],
    [
      "which tools a clerk may call",
      "resource",
      { subject: { type: "agent", id: "clerk" }, action: does("call"), resource: { type: "tool" } },
      [{ type: "tool", id: "orders.lookup" }],
      "shop",
    ],
  ])("%s", async (_name, what, body, want, tenant) => {
    const said = await search(what, body, tenant);
    expect([said.status, said.json]).toEqual([200, { results: want }]);
  });

  test.each<[name: string, what: string, body: object]>([
    ["4.7.1 no action", "subject", { subject: { type: "user" }, resource: record }],
    ["4.7.1 no subject", "resource", { action: does("read"), resource: { type: "record" } }],
    ["4.7.1 no resource", "action", { subject: alice }],
    [
      "4.7.2 no resource.id",
      "subject",
      { subject: { type: "user" }, action: does("read"), resource: { type: "record" } },
    ],
    [
      "4.7.2 no subject.id",
      "resource",
      { subject: { type: "user" }, action: does("read"), resource: { type: "record" } },
    ],
  ])("%s is a 400", async (_name, what, body) => {
    expect((await search(what, body)).status).toBe(400);
  });
});

describe("Interlock's own tools", () => {
  const clerk = { type: "agent", id: "clerk" };
  const call = (id: string, properties?: object, context?: object) => ({
    subject: clerk,
    action: does("call", properties),
    resource: { type: "tool", id },
    ...(context && { context }),
  });
  test.each<[name: string, request: object, want: object]>([
    [
      "an allow",
      call("orders.lookup"),
      { decision: true, context: { reasons: ["Clerks look up."], rules: ["shop.csv:1"] } },
    ],
    ["what people must approve is no yes", call("mail.send"), { decision: false, context: { needs_approval: true } }],
    [
      "an obligation that the caller does not know is a no",
      call("orders.refund", { amount: 5 }),
      { decision: false, context: { obligations: "wall_ms=100", reason: expect.stringMatching(/wall_ms/) } },
    ],
    [
      "an obligation that it honours is a yes",
      call("orders.refund", { amount: 5 }, { understands: ["wall_ms"] }),
      { decision: true },
    ],
    ["arguments are the action's properties", call("orders.refund", { amount: 6 }), { decision: false }],
    [
      "a tool that is not there",
      call("orders.eat"),
      { decision: false, context: { reason: "There is no tool orders.eat." } },
    ],
    [
      "a subject of another type",
      { ...call("orders.lookup"), subject: { type: "robot", id: "clerk" } },
      { decision: false },
    ],
  ])("%s", async (_name, request, want) => {
    const { status, json } = await ask(EVALUATION, request, { tenant: "shop" });
    expect(status).toBe(200);
    expect(json).toMatchObject(want);
  });
});

describe("who may ask, and what else there is", () => {
  test.each<[name: string, headers: Record<string, string>, status: number]>([
    ["nobody without a key", { authorization: "" }, 401],
    ["nobody with a wrong one", { authorization: "Bearer ilk_x" }, 401],
    ["no reviewer", { authorization: `Bearer ${keyOf("reviewer")}` }, 403],
  ])("%s", async (_name, headers, status) => {
    const said = await ask(EVALUATION, read, { headers });
    expect([said.status, said.json]).toEqual([status, undefined]);
    if (status === 401) expect(said.headers.get("www-authenticate")).toBe("Bearer");
  });

  test("each key asks its own tenant's policy", async () => {
    expect(decisionOf(await ask(EVALUATION, read, { tenant: "todo" }))).toBe(false);
  });

  test.each<[path: string, method: string, status: number]>([
    [EVALUATION, "GET", 405],
    ["/access/v1/evaluation/x", "POST", 404],
    ["/", "GET", 404],
  ])("%s by %s is %i", async (path, method, status) => {
    expect((await ask(path, {}, { method })).status).toBe(status);
  });

  test("more than a megabyte is refused", async () => {
    const said = await ask(EVALUATION, { ...read, context: { x: "y".repeat(1 << 20) } }).catch(() => ({ status: 413 }));
    expect(said.status).toBe(413);
  });
});
