import { isIP } from "node:net";
import { domainToASCII } from "node:url";

/**
 * The one reading of a host's name. What is decided on is what is looked up and dialled: a name that two parsers could
 * read in two ways is none.
 */
export type HostName =
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "refused"; readonly why: string };

const LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/;
/** RFC 1035, 2.3.4, without the final dot. */
const MAX_NAME = 253;

/** Lower-cases, and refuses all but letters, digits, hyphens and underscores between single dots; and addresses. */
export function parseHostName(text: string): HostName {
  const name = text.toLowerCase();
  if (name === "") return refused("is missing");
  if (name.length > MAX_NAME) return refused(`is longer than ${MAX_NAME} characters`);
  if (/[\x00-\x20\x7f]/.test(name)) return refused("holds a blank or a control character");
  if (name.includes("%")) return refused("is percent-encoded; write it plainly");
  if (isIP(name.replace(/^\[|\]$/g, "")) !== 0) return refused("is an address; use the name");
  if (/[^\x00-\x7f]/.test(name)) return refused(`is not ASCII; write it as ${domainToASCII(name) || "punycode"}`);
  if (name.endsWith(".")) return refused(`ends with a dot; write it as ${name.replace(/\.+$/, "")}`);
  const labels = name.split(".");
  const bad = labels.find((label) => !LABEL.test(label));
  if (bad !== undefined)
    return refused(bad === "" ? "has an empty label" : `has a label that is none: ${JSON.stringify(bad)}`);
  // As browsers and resolvers do: a last label that is a number makes it an IPv4 address in some notation.
  if (/^(\d+|0x[0-9a-f]*)$/.test(labels.at(-1) ?? "")) return refused("is an address in disguise; use the name");
  return { kind: "name", name };
}

function refused(why: string): HostName {
  return { kind: "refused", why };
}
