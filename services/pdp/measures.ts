import { formatEgressRule, intersectEgress, parseEgressRule, parseEgressRules } from "../shared/egress.ts";

/** Obligations about what a run may reach, what of its answer is shown, and who is told. Each imposes what it says. */
export type Measures = {
  /** The only ways out, as services/shared/egress.ts writes them; within the manifest's. Empty: none. */
  readonly egress?: readonly string[];
  /** Fields whose values are taken out of what the tool answers, wherever they stand. */
  readonly redact?: readonly string[];
  /** Who is told that the call was made. */
  readonly notify?: readonly string[];
};

export const MEASURES = ["egress", "redact", "notify"] as const;
type Name = (typeof MEASURES)[number];

const MAX_ITEMS = 32;
const FIELD = /^[A-Za-z0-9_.@-]{1,64}$/;

export function isMeasure(name: string): name is Name {
  return (MEASURES as readonly string[]).includes(name);
}

/** `egress=GET api.example.com:443|b.example.com:443`, `redact=card|email`, `notify=security`; egress=none for no way out. */
export function parseMeasure(name: Name, text: string): readonly string[] | { readonly message: string } {
  if (name === "egress" && text === "none") return [];
  const items = text.split("|").map((item) => item.trim());
  if (items.length > MAX_ITEMS) return { message: `give at most ${MAX_ITEMS}.` };
  for (const item of items) {
    if (name !== "egress") {
      if (!FIELD.test(item))
        return { message: "use 1 to 64 letters, digits, '-', '_', '.' or '@', and | between several." };
      continue;
    }
    const parsed = parseEgressRule(item);
    if (parsed.kind === "refused") return { message: parsed.why };
  }
  return [...new Set(items)].toSorted(byText);
}

/** Egress: what every list allows. Redaction and notices: all of them. */
export function mergeMeasures(all: readonly Measures[]): Measures {
  const lists = all.flatMap(({ egress }) => (egress === undefined ? [] : [parseEgressRules(egress)]));
  const [first] = lists;
  // The first once more with itself: of rules that cover each other, the widest is kept.
  const egress = first === undefined ? undefined : lists.reduce(intersectEgress, first).map(formatEgressRule);
  const union = (name: "redact" | "notify") => [...new Set(all.flatMap((one) => one[name] ?? []))].toSorted(byText);
  const [redact, notify] = [union("redact"), union("notify")];
  return {
    ...(egress !== undefined && { egress: egress.toSorted(byText) }),
    ...(redact.length > 0 && { redact }),
    ...(notify.length > 0 && { notify }),
  };
}

/** As a rule's last column has them. */
export function measurePairs(measures: Measures): [name: string, value: string][] {
  return MEASURES.flatMap((name): [string, string][] => {
    const items = measures[name];
    return items === undefined ? [] : [[name, items.length === 0 ? "none" : items.join("|")]];
  });
}

function byText(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
