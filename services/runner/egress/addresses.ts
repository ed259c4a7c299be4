import type { LookupAddress } from "node:dns";
import { lookup } from "node:dns/promises";
import { networkInterfaces } from "node:os";
import ipaddr from "ipaddr.js";
import { EgressRefusal } from "./refusal.ts";

/** A name that an operator has tied to an address, past the check: an internal service, or a test's server. */
export type KnownHost = {
  readonly host: string;
  readonly port: number;
  readonly address: string;
  /** Where it listens; by default `port`. */
  readonly address_port?: number | undefined;
};

export type Place = { readonly address: string; readonly port: number };
/** Where to connect for a host: checked, and to be dialled as it is. @throws EgressRefusal */
export type Resolve = (host: string, port: number) => Promise<Place>;
type Lookup = (host: string) => Promise<readonly Pick<LookupAddress, "address">[]>;

const systemLookup: Lookup = (host) => lookup(host, { all: true, verbatim: true });

/**
 * Looks a name up once and takes its first address, when all of them are public: one that is not means that the name's
 * owner points into somebody's network. Who asks again is looked up and checked again.
 */
export function resolver(known: readonly KnownHost[], lookUp: Lookup = systemLookup): Resolve {
  return async (host, port) => {
    const tied = known.find((each) => each.host === host && each.port === port);
    if (tied !== undefined) return { address: tied.address, port: tied.address_port ?? port };
    const addresses = await lookUp(host).catch(() => []);
    const [first] = addresses;
    if (first === undefined) throw new EgressRefusal("NO_ADDRESS", `The name ${host} has no address.`);
    for (const { address } of addresses) {
      const what = whyNotPublic(address);
      if (what === undefined) continue;
      throw new EgressRefusal(
        "ADDRESS_NOT_PUBLIC",
        `The name ${host} has an address that is ${what}; sandboxes reach public ones only.`,
      );
    }
    return { address: first.address, port };
  };
}

/** Answer to anyone on the machine they are asked from, and hand out credentials there; in ranges that are public. */
const METADATA: ReadonlySet<string> = new Set(["168.63.129.16"]);
/** All that is given out for use on the internet: RFC 4291, 2.4. */
const GLOBAL_UNICAST = ipaddr.parseCIDR("2000::/3") as [ipaddr.IPv6, number];

/** What kind of address it is, when it is none of the public internet; undefined when it is. */
export function whyNotPublic(address: string): string | undefined {
  // Strictly: no octal, no hex, no short forms.
  if (!ipaddr.IPv4.isValidFourPartDecimal(address) && !ipaddr.IPv6.isValid(address)) return "none";
  const parsed = ipaddr.parse(address);
  const range = parsed.range();
  if (range !== "unicast") return range;
  if (parsed.kind() === "ipv6" && !(parsed as ipaddr.IPv6).match(GLOBAL_UNICAST)) return "reserved";
  const text = parsed.toString();
  if (METADATA.has(text)) return "a metadata service";
  const own = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  return own.some((each) => ipaddr.isValid(each.address) && ipaddr.parse(each.address).toString() === text)
    ? "this machine's own"
    : undefined;
}
