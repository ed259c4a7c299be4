import { describe, expect, it, vi } from "vitest";
import { sha256Hex } from "../shared/json.ts";
import { manifestSchema } from "../shared/manifest.ts";
import { ManifestCache } from "./manifests.ts";

function jsonOf(change: Record<string, unknown> = {}): string {
  return JSON.stringify({
    ...{ name: "test.tool", version: "1.0.0", description: "A test's.", impact: "low", arguments: { type: "object" } },
    sandbox: { kind: "builtin", name: "noop" },
    ...change,
  });
}

describe("refused, with what to mend, is", () => {
  const bad: [what: string, json: string, says: RegExp][] = [
    ["what is no JSON", "{", /cannot be read \(It is not JSON/],
    ["a key that is there twice", jsonOf().replace("{", '{"name":"other.tool",'), /same key twice/],
    ["a field nobody knows", jsonOf({ sandbocks: {} }), /sandbocks/],
    ["a kind nobody knows", jsonOf({ sandbox: { kind: "vm" } }), /sandbox/],
    ["a builtin nobody knows", jsonOf({ sandbox: { kind: "builtin", name: "exec" } }), /sandbox\.name/],
    ["a bound beyond the widest", jsonOf({ limits: { memory_bytes: 2 ** 40 } }), /limits\.memory_bytes/],
    ["a list", "[]", /cannot be read/],
  ];
  it.each(bad)("%s", (_, json, says) => {
    const refusal = { code: "INVALID_ARGUMENT", reason: "MANIFEST_INVALID", field: "manifest_json" };
    const cache = new ManifestCache(2);
    // The second time too: what was refused is not kept.
    for (const _time of [1, 2]) {
      expect(() => cache.parse(sha256Hex(json), json)).toThrow(
        expect.objectContaining({ ...refusal, message: expect.stringMatching(says) }),
      );
    }
  });
});

it("parses a manifest once while it is in use, and forgets what was used least lately", () => {
  const parse = vi.spyOn(manifestSchema, "safeParse");
  try {
    const cache = new ManifestCache(2);
    const use = (name: string): number => {
      const json = jsonOf({ name });
      expect(cache.parse(sha256Hex(json), json).name).toBe(name);
      return parse.mock.calls.length;
    };
    const names = ["a.a", "b.b", "a.a", "c.c", "a.a", "b.b", "c.c"];
    expect(names.map(use)).toEqual([1, 2, 2, 3, 3, 4, 5]);
  } finally {
    parse.mockRestore();
  }
});
