import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { RunEnd } from "../../proto/interlock/v1/types_pb.ts";
import { type IsolateRunner, startIsolateRunner } from "../support/runner.ts";

/**
 * Programs that mean no good, one a file in scripts/, each saying what it tries and what must come of it. They run as
 * one tenant while another's honest program runs beside; and after each, the runner serves its tenant again.
 */

const END_NAMES = ["exited", "timeout", "cpu", "oom", "killed", "lost", "limit"] as const;
const heading = z.strictObject({
  tries: z.string().min(10),
  /** Any of them. */
  ends: z.array(z.enum(END_NAMES)).min(1),
  /** The limit that must have ended it: any of them. */
  limit: z.array(z.string()).optional(),
  result: z.json().optional(),
  error: z.string().optional(),
  stdout: z.string().optional(),
  limits: z.strictObject({ wallMs: z.int().optional(), cpuMs: z.int().optional() }).optional(),
  calls: z.array(z.string()).optional(),
  jit: z.boolean().optional(),
  egress: z.array(z.string()).optional(),
});

const FOLDER = join(import.meta.dirname, "scripts");
const scripts = readdirSync(FOLDER).map((file) => {
  const code = readFileSync(join(FOLDER, file), "utf8");
  const [, head = ""] = /^\/\*\n([\s\S]*?)\*\/\n/.exec(code) ?? [];
  return { name: file.replace(/\.js$/, ""), code, ...heading.parse(parse(head)) };
});

let runner: IsolateRunner;
beforeAll(async () => {
  runner = await startIsolateRunner({ workers: 5 });
});
afterAll(() => runner[Symbol.asyncDispose]());

it("there are at least 60 of them", () => {
  expect(scripts.length).toBeGreaterThanOrEqual(60);
});

const FINE = { sandbox: { code: "return input.n * 2" } };

it.each(scripts)("$name", { timeout: 60_000 }, async (script) => {
  const { code, calls, jit, egress = [], limits = {} } = script;
  const tool = {
    egress,
    sandbox: { code, ...(calls && { calls }), ...(jit && { jit }) },
    limits: {
      wall_ms: limits.wallMs ?? 30_000,
      cpu_ms: limits.cpuMs ?? 400,
      memory_bytes: 32 << 20,
      output_bytes: 8192,
    },
  };
  const hostile = runner.run(await runner.sign(tool, { a: 1 }, { tenant: "hostile" }), {
    answer: ({ tool: name }) =>
      name === "test.echo" ? { json: "{}" } : { code: 5, message: "There is no such tool." },
  });
  const beside = runner.run(await runner.sign(FINE, { n: 21 }, { tenant: "honest" }));
  const [got, honest] = await Promise.all([hostile, beside]);
  const end = END_NAMES[got.end - 1] ?? "unknown";
  expect({ end, error: got.error, ok: script.ends.includes(end as (typeof END_NAMES)[number]) }).toMatchObject({
    ok: true,
  });
  if (script.limit !== undefined) expect(script.limit).toContain(got.limit?.name);
  if (script.error !== undefined) expect(got.error).toContain(script.error);
  if (script.stdout !== undefined) expect(got.stdout).toBe(script.stdout);
  if (script.result !== undefined)
    expect({ error: got.error, result: JSON.parse(got.resultJson || "null") }).toEqual({
      error: "",
      result: script.result,
    });
  if (["timeout", "cpu", "oom", "limit"].includes(end)) expect(Number(got.limit?.used)).toBeGreaterThan(0);
  expect(got.error).not.toMatch(/\/node_modules\/|\/services\/|node:internal/);
  expect(Buffer.byteLength(got.stdout)).toBeLessThan(8192 + 200);
  expect([honest.end, honest.resultJson]).toEqual([RunEnd.EXITED, "42"]);
  const after = await runner.run(await runner.sign(FINE, { n: 1 }, { tenant: "hostile" }));
  expect([after.end, after.resultJson]).toEqual([RunEnd.EXITED, "2"]);
});
