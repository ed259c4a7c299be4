import { decideEgress, type EgressRequest, type EgressRule } from "../../shared/egress.ts";
import { EgressRefusal } from "./refusal.ts";

/** A secret, resolved, and the requests that it belongs to. */
export type Credential = {
  readonly rule: EgressRule;
  readonly put: { readonly in: "header"; readonly name: string } | { readonly in: "query"; readonly name: string };
  readonly value: string;
};

export function hasCredentialFor(credentials: readonly Credential[], request: EgressRequest): boolean {
  return credentials.some(({ rule }) => decideEgress([rule], request).kind === "allow");
}

export type Outgoing = { readonly target: string; readonly headers: Readonly<Record<string, string | string[]>> };

/**
 * Puts into a request what belongs to it, over what the program put there itself.
 * @throws EgressRefusal when two belong in one place: then neither is sent to what may be the wrong one.
 */
export function withCredentials(
  credentials: readonly Credential[],
  request: Extract<EgressRequest, { kind: "http" }>,
  headers: Outgoing["headers"],
): Outgoing & { readonly injected: boolean } {
  const fitting = credentials.filter(({ rule }) => decideEgress([rule], request).kind === "allow");
  const places = fitting.map(({ put }) => `${put.in} ${put.in === "header" ? put.name.toLowerCase() : put.name}`);
  const twice = places.find((place, index) => places.indexOf(place) !== index);
  if (twice !== undefined) {
    throw new EgressRefusal(
      "CREDENTIAL_AMBIGUOUS",
      `Two credentials belong in the ${twice} of this request; mend the manifest.`,
    );
  }
  let target = request.target;
  const put: Record<string, string | string[]> = { ...headers };
  for (const { put: place, value } of fitting) {
    if (place.in === "header") put[place.name.toLowerCase()] = value;
    else target = withParameter(target, place.name, value);
  }
  return { target, headers: put, injected: fitting.length > 0 };
}

function withParameter(target: string, name: string, value: string): string {
  const [path = "", query = ""] = target.split("?", 2);
  const kept = query.split("&").filter((part) => part !== "" && decoded(part.split("=", 1)[0] ?? "") !== name);
  return `${path}?${[...kept, `${encodeURIComponent(name)}=${encodeURIComponent(value)}`].join("&")}`;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}
