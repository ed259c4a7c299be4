/** Known secrets, masked wherever a tool's output spells them: plainly, in base64, in hex, percent-encoded or in JSON. */
export type Mask = (text: string) => string;

export const MASKED = "[masked]";

export function maskOf(secrets: readonly string[]): Mask {
  const spelled = spelledBy(secrets);
  if (spelled === undefined) return (text) => text;
  return (text) => text.replace(spelled.pattern, MASKED);
}

/** Masks a text that comes in pieces, cut anywhere: what may be the beginning of a secret waits for the rest. */
export type Masker = { write(text: string): string; end(): string };

/** What a masker gives, put together, is what `maskOf` gives for the whole text. */
export function maskerOf(secrets: readonly string[]): () => Masker {
  const spelled = spelledBy(secrets);
  if (spelled === undefined) return () => ({ write: (text) => text, end: () => "" });
  const { pattern, longest } = spelled;
  return () => {
    let held = "";
    return {
      write: (text) => {
        held += text;
        // Whatever begins before this point can be seen to its end.
        const decided = held.length - longest + 1;
        if (decided <= 0) return "";
        let [out, at] = ["", 0];
        for (const match of held.matchAll(pattern)) {
          if (match.index >= decided) break;
          out += held.slice(at, match.index) + MASKED;
          at = match.index + match[0].length;
        }
        if (at < decided) out += held.slice(at, decided);
        held = held.slice(Math.max(at, decided));
        return out;
      },
      end: () => {
        const rest = held.replace(pattern, MASKED);
        held = "";
        return rest;
      },
    };
  };
}

function spelledBy(secrets: readonly string[]): { pattern: RegExp; longest: number } | undefined {
  const spellings = [...new Set(secrets.flatMap(spellingsOf))].sort((a, b) => b.length - a.length);
  const [first] = spellings;
  if (first === undefined) return undefined;
  return { pattern: new RegExp(spellings.map(escapeRegExp).join("|"), "g"), longest: first.length };
}

function spellingsOf(secret: string): string[] {
  const bytes = Buffer.from(secret, "utf8");
  const json = inJson(secret);
  const ascii = json.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const percent = encodeURIComponent(secret);
  const inUrl = [percent, new URLSearchParams([["", secret]]).toString().slice(1)];
  const lowerCase = inUrl.map((text) => text.replace(/%../g, (code) => code.toLowerCase()));
  // base64 of a text around the secret: what does not depend on the neighbours, at each of the three alignments.
  const inBase64 = [0, 1, 2].map((lead) => {
    const shifted = Buffer.concat([Buffer.alloc(lead), bytes])
      .toString("base64")
      .replace(/=+$/, "");
    const first = lead === 0 ? 0 : lead + 1;
    const whole = Math.floor(((lead + bytes.length) * 8) / 6);
    return shifted.slice(first, whole);
  });
  const urlSafe = inBase64.map((text) => text.replaceAll("+", "-").replaceAll("/", "_"));
  const hex = bytes.toString("hex");
  const inText = [secret, json, inJson(json), ascii, ...inUrl, ...lowerCase, hex, hex.toUpperCase()];
  const alone = [bytes.toString("base64").replace(/=+$/, ""), bytes.toString("base64url")];
  return [...inText, ...alone, ...inBase64, ...urlSafe].filter((spelling) => spelling.length >= 6);
}

function inJson(text: string): string {
  return JSON.stringify(text).slice(1, -1);
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
