import { networkInterfaces } from "node:os";
import { describe, expect, it, test } from "vitest";
import { resolver, whyNotPublic } from "./addresses.ts";

const refused: [address: string, what: RegExp][] = [
  ["0.0.0.0", /unspecified/],
  ["0.1.2.3", /./],
  ["10.0.0.1", /private/],
  ["100.64.0.1", /carrierGradeNat/],
  ["100.100.100.200", /carrierGradeNat/],
  ["127.0.0.1", /loopback/],
  ["127.255.255.254", /loopback/],
  ["169.254.169.254", /linkLocal/],
  ["169.254.170.2", /linkLocal/],
  ["168.63.129.16", /metadata/],
  ["172.16.0.1", /private/],
  ["172.31.255.255", /private/],
  ["192.0.0.192", /reserved/],
  ["192.0.2.1", /./],
  ["192.88.99.1", /./],
  ["192.168.1.1", /private/],
  ["198.18.0.1", /./],
  ["198.51.100.1", /./],
  ["203.0.113.1", /./],
  ["224.0.0.1", /multicast/],
  ["239.255.255.250", /multicast/],
  ["240.0.0.1", /reserved/],
  ["255.255.255.255", /broadcast/],
  ["::", /unspecified/],
  ["::1", /loopback/],
  ["::7f00:1", /./],
  ["::ffff:127.0.0.1", /ipv4Mapped/],
  ["::ffff:93.184.216.34", /ipv4Mapped/],
  ["::ffff:0:127.0.0.1", /./],
  ["64:ff9b::7f00:1", /rfc6052/],
  ["64:ff9b:1::1", /./],
  ["100::1", /./],
  ["2001::1", /./],
  ["2001:db8::1", /./],
  ["2002:7f00:1::", /6to4/],
  ["3fff::1", /./],
  ["fc00::1", /uniqueLocal/],
  ["fd00:ec2::254", /uniqueLocal/],
  ["fe80::1", /linkLocal/],
  ["fe80::1%eth0", /linkLocal/],
  ["fec0::1", /./],
  ["ff02::1", /multicast/],
  ["0177.0.0.1", /none/],
  ["0x7f.0.0.1", /none/],
  ["2130706433", /none/],
  ["127.1", /none/],
  ["", /none/],
];
test.each(refused)("%s is no public address", (address, what) => {
  expect(whyNotPublic(address)).toMatch(what);
});

test.each(["93.184.216.34", "1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"])(
  "%s is one",
  (address) => {
    expect(whyNotPublic(address)).toBeUndefined();
  },
);

test("this machine's own addresses are none, whatever range they are in", () => {
  for (const each of Object.values(networkInterfaces()).flatMap((found) => found ?? [])) {
    expect(whyNotPublic(each.address)).toBeDefined();
  }
});

describe("a name", () => {
  const answering =
    (...addresses: string[]) =>
    async () =>
      addresses.map((address) => ({ address }));

  it("is where its first address says, when all are public", async () => {
    const resolve = resolver([], answering("1.1.1.1", "2606:4700:4700::1111"));
    expect(await resolve("a.com", 443)).toEqual({ address: "1.1.1.1", port: 443 });
  });

  it("with one address in somebody's network is refused whole", async () => {
    const resolve = resolver([], answering("1.1.1.1", "10.0.0.1"));
    await expect(resolve("a.com", 443)).rejects.toMatchObject({ reason: "ADDRESS_NOT_PUBLIC" });
  });

  it("without an address, or that cannot be looked up, is refused", async () => {
    await expect(resolver([], answering())("a.com", 443)).rejects.toMatchObject({ reason: "NO_ADDRESS" });
    const failing = resolver([], () => Promise.reject(new Error("SERVFAIL")));
    await expect(failing("a.com", 443)).rejects.toMatchObject({ reason: "NO_ADDRESS" });
  });

  it("that turns to an inner address at the second look is refused at the second look, and was dialled at the first's", async () => {
    const answers = ["1.1.1.1", "127.0.0.1"];
    const resolve = resolver([], async () => [{ address: answers.shift() ?? "" }]);
    expect(await resolve("rebinding.com", 80)).toEqual({ address: "1.1.1.1", port: 80 });
    await expect(resolve("rebinding.com", 80)).rejects.toMatchObject({ reason: "ADDRESS_NOT_PUBLIC" });
  });

  it("that an operator has tied to an address is there, at that port alone, and not looked up", async () => {
    const resolve = resolver(
      [{ host: "api.internal", port: 443, address: "10.1.2.3", address_port: 8443 }],
      answering("10.9.9.9"),
    );
    expect(await resolve("api.internal", 443)).toEqual({ address: "10.1.2.3", port: 8443 });
    await expect(resolve("api.internal", 80)).rejects.toMatchObject({ reason: "ADDRESS_NOT_PUBLIC" });
  });
});
