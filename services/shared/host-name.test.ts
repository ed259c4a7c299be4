import { expect, it } from "vitest";
import { parseHostName } from "./host-name.ts";

const names: [text: string, name: string][] = [
  ["example.com", "example.com"],
  ["API.Example.COM", "api.example.com"],
  ["a", "a"],
  ["_dmarc.example.com", "_dmarc.example.com"],
  ["xn--bcher-kva.example", "xn--bcher-kva.example"],
  ["1.example.com", "1.example.com"],
  [`${"a".repeat(63)}.com`, `${"a".repeat(63)}.com`],
];
it.each(names)("reads %j", (text, name) => {
  expect(parseHostName(text)).toEqual({ kind: "name", name });
});

const refused: [text: string, why: RegExp][] = [
  ["", /missing/],
  ["evil.com\0.example.com", /control character/],
  ["evil.com\n.example.com", /control character/],
  ["a b.com", /blank/],
  ["exam%70le.com", /percent-encoded/],
  ["bücher.example", /xn--bcher-kva\.example/],
  ["example.com.", /write it as example\.com$/],
  ["example..com", /empty label/],
  [".example.com", /empty label/],
  ["-a.com", /none/],
  ["a-.com", /none/],
  ["exa/mple.com", /none/],
  ["user@example.com", /none/],
  ["example.com:443", /none/],
  ["*.example.com", /none/],
  [`${"a".repeat(64)}.com`, /none/],
  [`${"a.".repeat(127)}com`, /253/],
  ["127.0.0.1", /is an address/],
  ["::1", /is an address/],
  ["[::1]", /is an address/],
  ["::ffff:127.0.0.1", /is an address/],
  ["fe80::1%eth0", /percent-encoded/],
  ["2130706433", /disguise/],
  ["0x7f000001", /disguise/],
  ["0x7f.1", /disguise/],
  ["0177.0.0.01", /disguise/],
  ["127.1", /disguise/],
  ["example.0x", /disguise/],
];
it.each(refused)("refuses %j", (text, why) => {
  expect(parseHostName(text)).toEqual({ kind: "refused", why: expect.stringMatching(why) });
});
