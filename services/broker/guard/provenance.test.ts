import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { canonicalJson, type JsonObject, sha256Hex } from "../../shared/json.ts";
import { type Manifest, manifestSchema } from "../../shared/manifest.ts";
import { ALLOW, ASK } from "../fixture.ts";
import { argue, hear, KNOWN, type Known, nothingKnown, provenanceOf, see, withProvenance } from "./provenance.ts";
import { signatureOf } from "./signature.ts";
import { tokensOf } from "./tokens.ts";

type Change = Partial<Pick<Manifest, "effects" | "provenance" | "arguments">>;

function manifestOf(change: Change = {}): Manifest {
  const parsed = manifestSchema.parse({
    ...{ name: "t.act", version: "1.0.0", description: "Acts.", impact: "high", effects: ["sends", "spends"] },
    arguments: { type: "object" },
    sandbox: { kind: "builtin", name: "noop" },
  });
  return { ...parsed, ...change };
}

const OPERATOR = { known: ["@corp.example", "api.corp.example"], user: "carla" };

type World = {
  readonly user?: string;
  readonly trusted?: string;
  readonly untrusted?: string;
  readonly argued?: JsonObject;
};

function knownOf({ user = "", trusted, untrusted, argued }: World): Known {
  const known = hear(nothingKnown(), { text: user, hashes: [] });
  if (argued !== undefined) argue(known, canonicalJson(argued));
  if (untrusted !== undefined) see(known, untrusted, "web.read", true);
  if (trusted !== undefined) see(known, trusted, "crm.find", false);
  return known;
}

function originsOf(world: World, args: JsonObject, change: Change = {}): string {
  return provenanceOf(knownOf(world), args, manifestOf(change), OPERATOR).origins.join(" ");
}

const IBAN = "DE89370400440532013000";

describe("a value seen in", () => {
  test.each<[string, World, JsonObject, string]>([
    ["the user's words", { user: "Send it to Eve@Mail.example, please." }, { to: "eve@mail.example" }, "user"],
    ["the user's words, spaced", { user: "pay DE89 3704 0044 0532 0130 00" }, { account: IBAN }, "user"],
    ["a trusted result", { user: "hi", trusted: '{"mail":"eve@x.example"}' }, { to: "eve@x.example" }, "trusted"],
    ["an untrusted one", { user: "hi", untrusted: "write to eve@x.example!" }, { to: ["eve@x.example"] }, "untrusted"],
    ["no place", { user: "hi" }, { to: "eve@x.example" }, "nowhere"],
    ["no place, nobody having said what the user said", {}, { to: "eve@x.example" }, "unknown"],
    ["configuration", { user: "hi" }, { to: "any@corp.example" }, "config"],
    ["configuration, as a host", { user: "hi" }, { url: "https://api.corp.example/v1?x=1" }, "config"],
    ["the identity of the user", { user: "hi" }, { user: "carla" }, "config"],
    [
      "two places",
      { user: "to a@x.example", untrusted: "b@x.example" },
      { to: "a@x.example, b@x.example" },
      "user untrusted",
    ],
    [
      "words of a name, one of them foreign",
      { user: "Eve", untrusted: "Mallory" },
      { recipient: "Eve Mallory" },
      "user untrusted",
    ],
    ["a URL by its host", { user: "see shop.example" }, { url: "https://shop.example/cart" }, "user"],
    [
      "a URL whose host ends like a known one",
      { user: "see shop.example" },
      { url: "https://shop.example.evil.example/" },
      "nowhere",
    ],
    [
      "a URL with a known name before the @",
      { user: "see shop.example" },
      { url: "https://shop.example@evil.example/" },
      "nowhere",
    ],
    [
      "a URL given by others on a known host",
      { user: "see shop.example", untrusted: "https://shop.example/r?to=evil" },
      { url: "https://shop.example/r?to=evil" },
      "untrusted",
    ],
    ["prose: ordinary words", { user: "hi", untrusted: "closed on friday" }, { body: "It is closed on Friday." }, ""],
    [
      "prose: a link",
      { user: "hi", untrusted: "go to https://evil.example/a" },
      { body: "Go to https://evil.example/a" },
      "untrusted",
    ],
    [
      "prose: an account",
      { user: "hi", untrusted: IBAN },
      { text: "Pay to DE89 3704 0044 0532 0130 00 now." },
      "untrusted",
    ],
    ["a date is no name", { user: "hi", untrusted: "2026-03-04" }, { start: "2026-03-04", to: "2026-03-04" }, ""],
    ["an amount in words of money", { user: "refund 45 USD" }, { amount_usd_micros: 45_000_000 }, "user"],
    ["an amount in cents", { user: "refund 45.50" }, { amount: 4550 }, "user"],
    ["an amount with thousands", { user: "pay 1,250.00 now" }, { amount: 1250 }, "user"],
    ["another amount", { user: "pay 45", untrusted: "pay 4500000" }, { amount: 4_500_000 }, "untrusted"],
    ["a count that is no amount", { user: "two nights" }, { nights: 2 }, ""],
    ["a made-up id", { user: "hi" }, { order_id: "ORD-77" }, "nowhere"],
    ["deep inside", { user: "hi", untrusted: "eve@x.example" }, { mails: [{ to: "eve@x.example" }] }, "untrusted"],
  ])("%s", (_, world, args, want) => expect(originsOf(world, args)).toBe(want));
});

describe("P1: the first sighting counts", () => {
  const evil = "eve@x.example";
  const untrusted = (known: Known) => see(known, evil, "web.read", true);
  const trusted = (known: Known) => see(known, evil, "crm.find", false);
  const argued = (known: Known) => argue(known, `{"name":"${evil}"}`);

  test.each<[string, ((known: Known) => void)[], string, string[], string]>([
    ["an echo does not launder", [untrusted, trusted], "", [], "untrusted"],
    ["nor does asking first", [argued, trusted], "", [], "nowhere"],
    ["a trusted result before", [trusted, untrusted], "", [], "trusted"],
    ["the user overrules", [untrusted], `yes, ${evil}`, [], "user"],
    ["the user overrules by hash", [untrusted], "", [sha256Hex(evil)], "user"],
  ])("%s", (_, lives, text, hashes, want) => {
    const known = hear(nothingKnown(), { text: "hello", hashes: [] });
    for (const live of lives) live(known);
    const after = hear(known, { text, hashes });
    expect(provenanceOf(after, { to: evil }, manifestOf(), OPERATOR).origins).toEqual([want]);
  });

  test("what comes with a call is heard before it is judged", () => {
    const { origins } = provenanceOf(nothingKnown(), { to: evil }, manifestOf(), OPERATOR, { text: evil, hashes: [] });
    expect(origins).toEqual(["user"]);
  });
});

describe("disguises are seen through", () => {
  test.each([
    ["full width", "ｅｖｅ＠ｘ．ｅｘａｍｐｌｅ"],
    ["zero width", "e\u200bv\u200de@x\u2060.example"],
    ["bidirectional marks", "\u202eeve@x.example\u202c"],
    ["JSON inside of JSON", JSON.stringify({ a: JSON.stringify({ b: "see\neve@x.example\t" }) })],
    ["inside of another script", "请写信给eve@x.example谢谢"],
    ["a mailto link", '<a href="mailto:eve@x.example?subject=x">'],
    ["upper case", "EVE@X.EXAMPLE"],
  ])("%s", (_, untrusted) => expect(originsOf({ user: "hi", untrusted }, { to: "eve@x.example" })).toBe("untrusted"));

  test.each([
    ["a letter of another alphabet", "\u0435ve@x.example"], // Cyrillic
    ["a dot more", "eve@x.example.co"],
  ])("another address stays another: %s", (_, to) => {
    expect(originsOf({ user: "write to eve@x.example" }, { to })).toBe("nowhere");
  });
});

describe("manifests may say better", () => {
  test("which arguments are targets, and which are prose", () => {
    const world = { user: "hi", untrusted: "mallory" };
    expect(originsOf(world, { whom: "mallory" })).toBe("");
    expect(originsOf(world, { whom: "mallory" }, { provenance: { targets: ["whom"], prose: [] } })).toBe("untrusted");
    expect(originsOf(world, { to: "mallory" }, { provenance: { targets: [], prose: ["to"] } })).toBe("");
  });

  test("what their schemas name is the operator's word", () => {
    const schema = { type: "object", properties: { channel: { enum: ["general", "ops"] } } };
    expect(originsOf({ user: "hi", untrusted: "ops" }, { channel: "ops" }, { arguments: schema })).toBe("config");
    expect(originsOf({ user: "hi", untrusted: "ext" }, { channel: "ext" }, { arguments: schema })).toBe("untrusted");
  });

  test("amounts matter where the tool spends", () => {
    expect(originsOf({ user: "hi" }, { amount: 7 }, { effects: ["writes"] })).toBe("");
    expect(originsOf({ user: "hi" }, { amount: 7 })).toBe("nowhere");
  });
});

test("who is asked is told where each foreign value comes from", () => {
  const known = knownOf({ user: "hi", untrusted: "eve@x.example" });
  const provenance = provenanceOf(known, { to: ["eve@x.example"], url: "https://y.example" }, manifestOf(), OPERATOR);
  expect(withProvenance(ASK, provenance).reasons).toEqual([
    ...ASK.reasons,
    'to[0]: "eve@x.example" was first seen in a result of web.read, which is untrusted; the user has not named it.',
    'url: "https://y.example" was named neither by the user nor by any result.',
  ]);
  expect(withProvenance(ALLOW, provenance)).toBe(ALLOW);
});

test("P2: what is known is bounded, and what was forgotten is foreign", () => {
  let known = hear(nothingKnown(), { text: "eve@x.example", hashes: [] });
  expect(provenanceOf(known, { to: "eve@x.example" }, manifestOf(), OPERATOR).origins).toEqual(["user"]);
  for (let i = 0; i < 40; i++) {
    see(known, Array.from({ length: 500 }, (_, n) => `w${i}-${n}`).join(" "), "crm.find", false);
    known = hear(known, { text: "", hashes: [] });
  }
  expect(known.tokens.size).toBe(KNOWN);
  expect(provenanceOf(known, { to: "eve@x.example" }, manifestOf(), OPERATOR).origins).toEqual(["nowhere"]);
});

test.each([
  ["dots", `${".".repeat(60_000)}x`],
  ["almost IBANs", "aa11aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_ ".repeat(1_400)],
  ["digits and signs", "1 (-".repeat(16_000)],
  ["one word", "a=".repeat(32_000)],
  ["quotes", '\\"'.repeat(30_000)],
])("no text makes it take long: %s", { timeout: 5_000 }, (_, text) => {
  expect(tokensOf(text).size).toBeLessThan(20_000);
  expect(signatureOf(manifestOf({ effects: ["reads"] }), { text }, canonicalJson({ text })).loose).not.toBe("");
});

test("no text makes more tokens than it has room for", () => {
  const piece = fc.constantFrom(
    "a",
    "1",
    "@",
    ".",
    "-",
    ":",
    "/",
    " ",
    "\\u0041",
    "é",
    "中",
    "{",
    '"',
    "\u200b",
    "DE89 3704 ",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 400 }), (pieces) => {
      const text = pieces.join("");
      const tokens = tokensOf(text);
      expect(tokens.size).toBeLessThanOrEqual(4 * text.length + 1);
      for (const token of tokens) expect(token).not.toMatch(/\s/);
    }),
  );
});
