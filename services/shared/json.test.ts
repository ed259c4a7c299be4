import { describe, expect, it } from "vitest";
import { canonicalJson, JsonError, parseJson, sha256Hex } from "./json.ts";

describe("parseJson", () => {
  const refused: [name: string, text: string, path: string][] = [
    ["not JSON", "{", ""],
    ["two keys alike", '{"a":1,"a":1}', ""],
    ["two keys alike, one escaped", '{"a":1,"\\u0061":2}', ""],
    ["two keys alike, deep", '{"x":[{"b":1,"b":2}]}', ""],
    ["an integer past 2^53", '{"a":9007199254740993}', "a"],
    ["a number that overflows", '{"a":1e999}', "a"],
    ["half a surrogate pair", '{"a":"\\ud800"}', "a"],
    ["half a surrogate pair in a key", '{"\\udc00":1}', "\udc00"],
    ["__proto__", '{"__proto__":{}}', "__proto__"],
    ["too deep", "[".repeat(70) + "]".repeat(70), "[0]".repeat(64)],
    ["NaN", "NaN", ""],
  ];
  it.each(refused)("refuses %s", (_, text, path) => {
    expect(() => parseJson(text)).toThrow(JsonError);
    try {
      parseJson(text);
    } catch (error) {
      expect((error as JsonError).path).toBe(path);
    }
  });

  it("is not confused by colons and quotes inside strings", () => {
    expect(parseJson('{"a":"x:\\"y\\":{","b":[":"]}')).toEqual({ a: 'x:"y":{', b: [":"] });
  });
});

describe("canonicalJson", () => {
  it("is the same for the same meaning", () => {
    const one = canonicalJson(parseJson('{"b":1.0,"a":"\\u00e9"}'));
    expect(one).toBe('{"a":"é","b":1}');
    expect(canonicalJson(parseJson(' {"a":"é", "b":1} '))).toBe(one);
    expect(sha256Hex(one)).toMatch(/^[0-9a-f]{64}$/);
  });
});
