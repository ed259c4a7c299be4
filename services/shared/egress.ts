import { getDomain } from "tldts";
import { parseHostName } from "./host-name.ts";

/**
 * What a sandbox may reach, and the one decision about it. A rule is a line of text, in manifests, obligations and
 * permits alike:
 *
 *   api.example.com:443                          any bytes over TLS to that name, or HTTP when its port is 80
 *   *.example.com:443                            any name below it, not itself
 *   GET,HEAD api.example.com:443                 these methods
 *   POST api.example.com:443/v1/orders           exactly this path
 *   GET api.example.com:443/v1/*                 every path below it
 *
 * A rule that names methods or a path is about HTTP: the proxy has to read the requests, so it ends TLS itself. Nothing
 * matches means no, and so does an empty list. Pure.
 */
export type EgressRule = {
  /** A name, or `*.` and a name. Lower case. */
  readonly host: string;
  readonly port: number;
  /** undefined: all. Sorted, upper case. */
  readonly methods: readonly string[] | undefined;
  /** undefined: all. A whole path, or one that ends in `/*` for all below it. */
  readonly path: string | undefined;
};

export type ParsedRule =
  | { readonly kind: "rule"; readonly rule: EgressRule }
  | { readonly kind: "refused"; readonly why: string };

export const METHODS: readonly string[] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
const RULE = /^(?:([^ ]*) )?([^ /:]*)(?::([^ /]*))?(\/[^ ]*)?$/;
const FORM = "write it as `[METHOD,... ]host:port[/path]`, e.g. `GET api.example.com:443/v1/*`";

/** Rules must come in the one spelling that `formatEgressRule` gives them; another is refused with that one. */
export function parseEgressRule(text: string): ParsedRule {
  const match = RULE.exec(text);
  if (match === null) return refuse(text, FORM);
  const [, methodsText, hostText = "", portText, path] = match;
  const host = hostOf(hostText);
  if (host.kind === "refused") return refuse(text, host.why);
  if (portText === undefined) return refuse(text, `it names no port: write ${host.name}:443, or the port you mean`);
  const port = /^[1-9]\d{0,4}$/.test(portText) ? Number(portText) : 0;
  if (port < 1 || port > 65_535) return refuse(text, "its port is none: write a number from 1 to 65535");
  const asked = methodsText?.split(",");
  const unknown = asked?.find((method) => !METHODS.includes(method));
  if (unknown !== undefined) return refuse(text, `${JSON.stringify(unknown)} is no method; use ${METHODS.join(", ")}`);
  const badPath = path === undefined ? undefined : problemOfPath(path);
  if (badPath !== undefined) return refuse(text, badPath);
  const methods = asked && METHODS.filter((method) => asked.includes(method));
  const rule = { host: host.name, port, methods, path };
  const spelling = formatEgressRule(rule);
  return spelling === text ? { kind: "rule", rule } : refuse(text, `write it as ${JSON.stringify(spelling)}`);
}

/** @throws Error naming the first rule that is none. */
export function parseEgressRules(texts: readonly string[]): EgressRule[] {
  return texts.map((text) => {
    const parsed = parseEgressRule(text);
    if (parsed.kind === "refused") throw new Error(parsed.why);
    return parsed.rule;
  });
}

export function formatEgressRule({ host, port, methods, path }: EgressRule): string {
  return `${methods === undefined ? "" : `${methods.join(",")} `}${host}:${port}${path ?? ""}`;
}

function refuse(text: string, why: string): ParsedRule {
  return { kind: "refused", why: `The egress rule ${JSON.stringify(text.slice(0, 300))} cannot be used: ${why}.` };
}

function hostOf(text: string): ReturnType<typeof parseHostName> {
  const wild = text.startsWith("*.");
  const host = parseHostName(wild ? text.slice(2) : text);
  if (host.kind === "refused") {
    const mend = text.includes("*")
      ? "a `*` stands only for whole labels at the beginning, as in `*.example.com`"
      : undefined;
    return { kind: "refused", why: mend ?? `its host ${host.why}` };
  }
  if (!wild) return host;
  // The list of public suffixes: names under which strangers register theirs, private ones such as github.io too.
  if (getDomain(host.name, { allowPrivateDomains: true, detectIp: false }) === null) {
    return { kind: "refused", why: `*.${host.name} is too wide, anyone can have a name below it: name the hosts` };
  }
  return { kind: "name", name: `*.${host.name}` };
}

/** undefined: a path that every reader reads alike. */
function problemOfPath(path: string): string | undefined {
  const plain = path.endsWith("/*") ? path.slice(0, -1) : path;
  if (plain.includes("*")) return "a `*` in its path stands only at the end, as in `/v1/*`";
  if (/[?#]/.test(plain)) return "its path has a query or fragment; rules are about the path alone";
  if (!isPlainPath(plain))
    return "its path is not plain: no empty, `.` or `..` segment, no backslash, no encoded separator";
  return undefined;
}

/** No server can be made to read it as another path: no empty or dot segments, parameters, or encoded ones of these. */
function isPlainPath(path: string): boolean {
  if (!/^\/[A-Za-z0-9\-._~!$&'()+,=:@%/]*$/.test(path)) return false;
  if (/%(?![0-9A-Fa-f]{2})|%(?:2e|2f|5c|25|3b|[01][0-9a-f]|7f)/i.test(path)) return false;
  return !/\/(?:\/|\.{1,2}(?:\/|$))/.test(path);
}

export type EgressRequest =
  /** A way to a host, on which anything may be said. */
  | { readonly kind: "connect"; readonly host: string; readonly port: number }
  /** `target` is the request's, with its query. */
  | {
      readonly kind: "http";
      readonly host: string;
      readonly port: number;
      readonly method: string;
      readonly target: string;
    };

export type EgressDecision =
  /** `inspect`: only for requests that are read and decided on one by one. */
  | { readonly kind: "allow"; readonly rule: EgressRule; readonly inspect: boolean }
  | {
      readonly kind: "deny";
      readonly reason: "HOST_INVALID" | "NO_RULE" | "METHOD_NOT_ALLOWED" | "PATH_NOT_ALLOWED" | "PATH_AMBIGUOUS";
      /** One sentence: what was asked, and which rule is missing. */
      readonly message: string;
      /** The narrowest rule that would allow it; undefined where none can. */
      readonly missing: string | undefined;
    };

/**
 * In this order: the host's name must be one; a rule must name host and port; one of these must name the method; one of
 * these the path, which then must be plain.
 */
export function decideEgress(rules: readonly EgressRule[], request: EgressRequest): EgressDecision {
  const host = parseHostName(request.host);
  if (host.kind === "refused") {
    const message = `The host ${JSON.stringify(request.host.slice(0, 300))} ${host.why}.`;
    return { kind: "deny", reason: "HOST_INVALID", message, missing: undefined };
  }
  const there = rules.filter((rule) => rule.port === request.port && coversHost(rule.host, host.name));
  const [first] = there;
  if (first === undefined) return deny("NO_RULE", request, host.name);
  if (request.kind === "connect") {
    const open = there.find((rule) => rule.methods === undefined && rule.path === undefined);
    return { kind: "allow", rule: open ?? first, inspect: open === undefined };
  }
  const byMethod = there.filter(({ methods }) => methods === undefined || methods.includes(request.method));
  if (byMethod.length === 0) return deny("METHOD_NOT_ALLOWED", request, host.name);
  const path = pathOf(request.target);
  const rule = byMethod.find((each) => each.path === undefined || (isPlainPath(path) && coversPath(each.path, path)));
  if (rule !== undefined) return { kind: "allow", rule, inspect: true };
  return deny(isPlainPath(path) ? "PATH_NOT_ALLOWED" : "PATH_AMBIGUOUS", request, host.name);
}

function deny(
  reason: Exclude<Extract<EgressDecision, { kind: "deny" }>["reason"], "HOST_INVALID">,
  request: EgressRequest,
  host: string,
): EgressDecision {
  const asked = `${host}:${request.port}`;
  if (request.kind === "connect") {
    return { kind: "deny", reason, missing: asked, message: `No egress rule names ${asked}.` };
  }
  const path = pathOf(request.target);
  if (reason === "PATH_AMBIGUOUS") {
    const message = `The path ${JSON.stringify(path.slice(0, 300))} can be read in two ways, so no rule with a path allows it.`;
    return { kind: "deny", reason, missing: undefined, message };
  }
  if (!METHODS.includes(request.method)) {
    const message = `No egress rule can allow the method ${JSON.stringify(request.method.slice(0, 32))}.`;
    return { kind: "deny", reason, missing: undefined, message };
  }
  const missing = `${request.method} ${asked}${isPlainPath(path) ? path : ""}`;
  return { kind: "deny", reason, missing, message: `No egress rule allows ${missing}.` };
}

function pathOf(target: string): string {
  return target.split(/[?#]/, 1)[0] ?? "";
}

function coversHost(pattern: string, host: string): boolean {
  return pattern.startsWith("*.") ? host.endsWith(pattern.slice(1)) : pattern === host;
}

function coversPath(pattern: string, path: string): boolean {
  return pattern.endsWith("/*") ? path.startsWith(pattern.slice(0, -1)) : pattern === path;
}

/** What both lists allow, as the fewest rules. Requests allowed by it are those that each list allows. */
export function intersectEgress(some: readonly EgressRule[], others: readonly EgressRule[]): EgressRule[] {
  const met = some.flatMap((one) => others.map((other) => meet(one, other)).filter((rule) => rule !== undefined));
  const kept: EgressRule[] = [];
  for (const rule of met) {
    if (kept.some((each) => covers(each, rule))) continue;
    kept.splice(0, kept.length, ...kept.filter((each) => !covers(rule, each)), rule);
  }
  return kept;
}

function meet(one: EgressRule, other: EgressRule): EgressRule | undefined {
  const host = narrower(one.host, other.host, coversHost);
  if (host === undefined || one.port !== other.port) return undefined;
  const methods = narrowerMethods(one.methods, other.methods);
  if (methods?.length === 0) return undefined;
  if (one.path === undefined || other.path === undefined) {
    return { host, port: one.port, methods, path: one.path ?? other.path };
  }
  const path = narrower(one.path, other.path, coversPath);
  return path === undefined ? undefined : { host, port: one.port, methods, path };
}

function narrower(one: string, other: string, wide: (pattern: string, text: string) => boolean): string | undefined {
  if (one === other || wide(one, other)) return other;
  return wide(other, one) ? one : undefined;
}

function narrowerMethods(one: readonly string[] | undefined, other: readonly string[] | undefined) {
  if (one === undefined || other === undefined) return one ?? other;
  return one.filter((method) => other.includes(method));
}

function covers(wide: EgressRule, narrow: EgressRule): boolean {
  const { host, port, methods, path } = wide;
  if (port !== narrow.port || !(host === narrow.host || coversHost(host, narrow.host))) return false;
  if (methods !== undefined && narrow.methods?.every((method) => methods.includes(method)) !== true) return false;
  return path === undefined || path === narrow.path || (narrow.path !== undefined && coversPath(path, narrow.path));
}
