import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { MASKED, maskerOf, maskOf } from "./mask.ts";

const SECRET = 's3cr3t/"key"+ü&more';
const mask = maskOf([SECRET]);
const bytes = Buffer.from(SECRET);

describe("a secret, however it is spelled", () => {
  test.each([
    ["plainly", SECRET],
    ["in JSON", JSON.stringify(SECRET).slice(1, -1)],
    ["in JSON in JSON", JSON.stringify(JSON.stringify(SECRET).slice(1, -1)).slice(1, -1)],
    ["in JSON of ASCII, as Python writes it", JSON.stringify(SECRET).slice(1, -1).replace("ü", "\\u00fc")],
    ["percent-encoded", encodeURIComponent(SECRET)],
    ["percent-encoded in lower case", encodeURIComponent(SECRET).replaceAll(/%../g, (code) => code.toLowerCase())],
    ["in a form", new URLSearchParams({ k: SECRET }).toString().slice(2)],
    ["in hex", bytes.toString("hex")],
    ["in upper-case hex", bytes.toString("hex").toUpperCase()],
    ["in base64", bytes.toString("base64").replace(/=+$/, "")],
    ["in base64url", bytes.toString("base64url")],
  ])("%s", (_, spelling) => {
    expect(mask(`before ${spelling} after`)).toBe(`before ${MASKED} after`);
    expect(mask(`${spelling}${spelling}`)).toBe(`${MASKED}${MASKED}`);
  });

  test.each(["base64", "base64url"] as const)("within other bytes in %s, at any alignment", (encoding) => {
    for (let lead = 0; lead < 6; lead++) {
      for (let tail = 0; tail < 4; tail++) {
        const around = Buffer.concat([Buffer.alloc(lead, "x"), bytes, Buffer.alloc(tail, "y")]);
        const shown = mask(around.toString(encoding));
        expect(shown, `${lead}+${tail}`).toContain(MASKED);
        // What is left carries no more than the few bits that the secret shares with its neighbours.
        for (const piece of shown.split(MASKED)) {
          expect(Buffer.from(piece, encoding).toString("latin1")).not.toContain(SECRET.slice(1, 5));
        }
      }
    }
  });
});

test.each([
  ["no secrets", [], "nothing to hide"],
  ["another text", [SECRET], "nothing to hide"],
  ["an empty secret", [""], "nothing to hide"],
  ["a secret too short to look for", ["abc"], "abc abc"],
])("%s: the text stays as it is", (_, secrets, text) => expect(maskOf(secrets)(text)).toBe(text));

test("what means something in a regular expression does not here", () => {
  expect(maskOf(["a.*b|c(d[e]$^\\"])("aXXb a.*b|c(d[e]$^\\ cd")).toBe(`aXXb ${MASKED} cd`);
});

test("a replacement pattern in a secret is not one", () => {
  expect(maskOf(["$&$1$$secret"])("x $&$1$$secret y")).toBe(`x ${MASKED} y`);
});

test("of secrets within secrets the longest is masked", () => {
  expect(maskOf(["secret", "secret-longer"])("secret-longer secret")).toBe(`${MASKED} ${MASKED}`);
});

test("any secret of six characters is found in any text that spells it", () => {
  const text = fc.string({ unit: "grapheme", maxLength: 30 });
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", minLength: 6, maxLength: 30 }), text, text, (secret, before, after) => {
      fc.pre(secret.isWellFormed());
      const hide = maskOf([secret]);
      const json = JSON.stringify(secret).slice(1, -1);
      for (const spelling of [secret, json, encodeURIComponent(secret), Buffer.from(secret).toString("hex")]) {
        expect(hide(`${before}${spelling}${after}`)).not.toContain(spelling);
      }
    }),
  );
});

test("a text in pieces, cut anywhere, is masked like the whole", () => {
  const secrets = ["hunter22", "hunter22-longer", "22-lon"];
  const piece = fc.constantFrom(
    "hun",
    "ter22",
    "-lon",
    "ger",
    "x",
    "aHVudGVyMjI",
    Buffer.from("xhunter22").toString("base64"),
    "22",
    "",
  );
  const newMasker = maskerOf(secrets);
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), fc.array(fc.nat(200), { maxLength: 8 }), (parts, cuts) => {
      const text = parts.join("");
      const masker = newMasker();
      const places = [0, ...cuts.filter((cut) => cut < text.length).sort((a, b) => a - b), text.length];
      const masked = places.slice(1).map((end, i) => masker.write(text.slice(places[i], end)));
      expect(masked.join("") + masker.end()).toBe(maskOf(secrets)(text));
    }),
    { numRuns: 2_000 },
  );
});

test("without secrets a text in pieces is held up nowhere", () => {
  const masker = maskerOf([])();
  expect([masker.write("a"), masker.write("b"), masker.end()]).toEqual(["a", "b", ""]);
});

describe("200 secrets", () => {
  const secrets = Array.from({ length: 200 }, (_, i) => `sk-live-${i}-${"0123456789abcdef".repeat(2)}-${i * 7919}`);
  const hide = maskOf(secrets);

  test("each of them is found", () => {
    for (const secret of secrets) expect(hide(`x${secret}y`)).toBe(`x${MASKED}y`);
  });

  test("the work grows with the text and not with its square, also where every place looks like a secret's start", () => {
    const near = "sk-live-1-0123456789abcdef0123456789abcdee".repeat(32 << 10).slice(0, 1 << 20);
    const spent = (text: string): bigint => {
      const before = process.hrtime.bigint();
      expect(hide(text)).toBe(text);
      return process.hrtime.bigint() - before;
    };
    spent(near.slice(0, 1 << 16));
    const small = spent(near.slice(0, 1 << 16));
    const large = spent(near);
    expect(Number(large) / Number(small)).toBeLessThan(16 * 8); // sixteen times the text; its square would be 256
  });
});
