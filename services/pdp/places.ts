import { BlockList, isIP } from "node:net";
import { parseHostName } from "../shared/host-name.ts";
import type { Json } from "../shared/json.ts";
import type { SafeFunction } from "./functions.ts";
import { glob } from "./glob.ts";
import { ConditionError, problemOf, text_ } from "./values.ts";

/**
 * Functions over paths, hosts and addresses. A plain glob over such text is a trap (`/data/../etc`, `EVIL.example.`,
 * `example.com.evil.net`): here the text is brought to its one spelling first, and what has no sure one throws, so that
 * the rule denies.
 */
export const PLACE_FUNCTIONS: Readonly<Record<string, SafeFunction>> = {
  inPath: {
    parameters: ["text", "text"],
    returns: "boolean",
    usage: "inPath(r.args.path, '/data')",
    call: (path, folder) => {
      const [at, within] = [normalPath(text_(path)), normalPath(text_(folder))];
      return within === "/" || at === within || at.startsWith(`${within}/`);
    },
    problemOf: (i, written) => (i === 1 ? problemOf(() => normalPath(written)) : undefined),
  },
  pathGlob: {
    parameters: ["text", "text"],
    returns: "boolean",
    usage: "pathGlob(r.args.path, '/data/*/report.csv')",
    call: (path, pattern) => segmentsFit(normalPath(text_(path)).split("/"), normalPath(text_(pattern)).split("/")),
    problemOf: (i, written) => (i === 1 ? problemOf(() => normalPath(written)) : undefined),
  },
  hostGlob: {
    parameters: ["text", "text"],
    returns: "boolean",
    usage: "hostGlob(r.args.url, '*.example.com')",
    call: (host, pattern) => hostFits(normalHost(text_(host)), text_(pattern)),
    problemOf: (i, written) => (i === 1 ? problemOfHostPattern(written) : undefined),
  },
  cidr: {
    parameters: ["text", "text"],
    rest: "text",
    returns: "boolean",
    usage: "cidr(r.args.address, '10.0.0.0/8', 'fd00::/8')",
    call: (address, ...blocks) => {
      const at = plainAddress(text_(address));
      return blocks.some((block: Json) => blockOf(text_(block)).check(at, isIP(at) === 6 ? "ipv6" : "ipv4"));
    },
    problemOf: (i, written) => (i > 0 ? problemOf(() => blockOf(written)) : undefined),
  },
};

/** PATH_MAX of Linux; what is longer is no path or URL that a tool could use, and would take long to look at. */
const MAX_TEXT = 4096;

/** `/a/./b//../c` is `/a/c`. @throws ConditionError for what a file system and we could read differently. */
function normalPath(path: string): string {
  if (path.length > MAX_TEXT) throw new ConditionError(`the path is longer than ${MAX_TEXT} characters`);
  if (!path.startsWith("/")) throw new ConditionError(`'${shown(path)}' is no absolute path`);
  if (/[\p{Cc}\\%]/u.test(path) || !path.isWellFormed()) {
    throw new ConditionError(`the path '${shown(path)}' has a control character, a backslash or a %`);
  }
  const kept: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") kept.pop();
    else kept.push(part);
  }
  return `/${kept.join("/")}`;
}

/** `*` stays within one folder, `**` stands for any number of them. */
function segmentsFit(path: readonly string[], pattern: readonly string[]): boolean {
  // fits[j]: pattern from j on fits what is left of the path; one row for each place in the path, from its end.
  let fits = pattern.map((_, j) => pattern.slice(j).every((part) => part === "**"));
  fits.push(true);
  for (let i = path.length - 1; i >= 0; i--) {
    const row: boolean[] = new Array(pattern.length + 1).fill(false);
    for (let j = pattern.length - 1; j >= 0; j--) {
      row[j] =
        pattern[j] === "**"
          ? row[j + 1] === true || fits[j] === true
          : fits[j + 1] === true && glob(path[i] ?? "", pattern[j] ?? "");
    }
    fits = row;
  }
  return fits[0] === true;
}

/** The host of a URL or a plain host, in its one spelling. @throws ConditionError for what is none for certain. */
function normalHost(text: string): string {
  if (text.length > MAX_TEXT) throw new ConditionError(`the host is longer than ${MAX_TEXT} characters`);
  const host = (text.includes("://") ? hostOfUrl(text) : text).toLowerCase().replace(/\.$/, "");
  if (isIP(host) !== 0) return host;
  const parsed = parseHostName(host);
  if (parsed.kind === "refused") throw new ConditionError(`the host '${shown(text)}' ${parsed.why}`);
  return parsed.name;
}

/** A URL's own parser repairs and decodes: when it has changed the host, another parser may read yet another one. */
function hostOfUrl(text: string): string {
  const written = /^[a-z][a-z0-9+.-]*:\/\/(?:[^\s/?#@\\]*@)?([^\s/?#@\\:]+)(?::\d{1,5})?(?:[/?#]|$)/i.exec(text)?.[1];
  if (written === undefined || !URL.canParse(text) || new URL(text).hostname !== written.toLowerCase()) {
    throw new ConditionError(`'${shown(text)}' is no URL whose host is certain`);
  }
  return written;
}

function hostFits(host: string, pattern: string): boolean {
  if (!pattern.startsWith("*.")) return host === pattern;
  return host.length > pattern.length - 1 && host.endsWith(pattern.slice(1));
}

function problemOfHostPattern(pattern: string): string | undefined {
  const rest = pattern.replace(/^\*\./, "");
  const wanted = `write a host in lower case, or *.example.com for those below one, not '${shown(pattern)}'`;
  if (problemOf(() => normalHost(rest)) !== undefined || normalHost(rest) !== rest || rest.includes("://"))
    return wanted;
  if (pattern.startsWith("*.") && !rest.includes(".")) return `${wanted}; a whole top-level domain is too wide`;
  return undefined;
}

/** @throws ConditionError for a name, or an address in another's clothes (`::ffff:10.0.0.1`, `0x7f.1`). */
function plainAddress(text: string): string {
  if (isIP(text) === 0) throw new ConditionError(`'${shown(text)}' is no IP address`);
  if (/^::ffff:/i.test(text) || text.includes("%"))
    throw new ConditionError(`'${shown(text)}' is not a plain IP address`);
  return text;
}

const MAX_BLOCKS = 10_000;
const blocks = new Map<string, BlockList>();

function blockOf(text: string): BlockList {
  const known = blocks.get(text);
  if (known !== undefined) return known;
  const [address = "", bits = "", ...more] = text.split("/");
  const family = isIP(address);
  const width = /^\d{1,3}$/.test(bits) ? Number(bits) : Number.NaN;
  if (family === 0 || more.length > 0 || !(width >= 0 && width <= (family === 6 ? 128 : 32))) {
    throw new ConditionError(`'${shown(text)}' is no block of addresses such as 10.0.0.0/8`);
  }
  const block = new BlockList();
  block.addSubnet(address, width, family === 6 ? "ipv6" : "ipv4");
  if (blocks.size >= MAX_BLOCKS) blocks.clear();
  blocks.set(text, block);
  return block;
}

function shown(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
