import { isIban } from "./checksums.ts";

/**
 * Values as they are compared: normalised, and in parts. Pure. Hashes are never made of these, only matches.
 *
 * A text becomes tokens: its words, and of what is written together (addresses, URLs, `key=value`) the parts as well;
 * numbers as they count, and account numbers, phones and cards without the spaces people put in.
 */

/** Of one text, at most so much is looked at, half from each end: what is cut out counts as never seen. */
const MOST_CHARS = 64 << 10;

const SEPARATORS = /[\s"'`<>()[\]{},;|\\]+/;
const INNER = /[:=/?&#]+/;
const LEADING = ".:!?*_~=@#$€£%-";
const TRAILING = ".:!?*_~=%-";
/** IBANs, cards, phones and account numbers as people write them. */
const GROUPED =
  /\b[a-z]{2}\d{2}(?:(?:[ -][0-9a-z]{4}){2,7}(?:[ -][0-9a-z]{1,3})?|[0-9a-z]{11,30})\b|\+?\d(?:[ .()/-]{0,2}\d){6,18}/g;
/** An amount, thousands separated by commas. */
const NUMBER = /^-?\d{1,3}(?:,\d{3})+(?:\.\d+)?$|^-?\d+(?:\.\d+)?$/;

/** NFKC, without what does not show (format characters, variation selectors), lower case. */
export function normalise(text: string): string {
  if (/^[\x00-\x7f]*$/.test(text)) return text.toLowerCase();
  return text
    .normalize("NFKC")
    .replaceAll(/\p{Cf}|\p{Variation_Selector}|\u{115f}|\u{1160}|\u{3164}/gu, "")
    .toLowerCase();
}

export function tokensOf(text: string): Set<string> {
  const found = new Set<string>();
  const plain = normalise(unescaped(ends(text)));
  for (const word of plain.split(SEPARATORS)) addWord(found, word);
  if (/[^\x00-\x7f]/.test(plain)) for (const [run] of plain.matchAll(/[\x21-\x7e]+/g)) addWord(found, run);
  if (/\d/.test(plain)) for (const [group] of plain.matchAll(GROUPED)) found.add(accountOf(squeeze(group)));
  // A number with spaces or commas in it has been cut at them.
  if (/\d,\d/.test(plain))
    for (const [amount] of plain.matchAll(/\d{1,3}(?:,\d{3})+(?:\.\d+)?/g)) found.add(numberOf(amount) ?? amount);
  return found;
}

function addWord(found: Set<string>, word: string): void {
  const token = isPlain(word.charCodeAt(0)) && isPlain(word.charCodeAt(word.length - 1)) ? word : trim(word);
  if (token === "") return;
  found.add(token);
  if (!/[\d:=/?&#]/.test(token)) return;
  const number = numberOf(token);
  if (number !== undefined) found.add(number);
  const parts = token.split(INNER);
  for (const part of parts.length > 1 ? parts : []) {
    const inner = trim(part);
    if (inner !== "") found.add(inner);
  }
}

/** A word that follows an IBAN looks like a part of it: the check digits say where it ends. */
function accountOf(squeezed: string): string {
  for (let end = Math.min(squeezed.length, 34); end >= 15; end--) {
    if (isIban(squeezed.slice(0, end))) return squeezed.slice(0, end);
  }
  return squeezed;
}

/** By hand: a regular expression tries a long run of dots from each of them. */
function trim(word: string): string {
  let [start, end] = [0, word.length];
  while (start < end && LEADING.includes(word[start] ?? "")) start++;
  while (end > start && TRAILING.includes(word[end - 1] ?? "")) end--;
  return word.slice(start, end);
}

/** A lower-case letter, a digit, or a character beyond ASCII and its signs: nothing that is trimmed. */
function isPlain(code: number): boolean {
  return (code >= 0x61 && code <= 0x7a) || (code >= 0x30 && code <= 0x39) || (code >= 0xc0 && code !== 0x20ac);
}

export function squeeze(text: string): string {
  return text.replaceAll(/[ .()/+-]/g, "").replace(/^00/, "");
}

/** As JSON would write it, or undefined for what is no number. */
export function numberOf(token: string): string | undefined {
  if (!NUMBER.test(token)) return undefined;
  return String(Number(token.replaceAll(",", "")));
}

function ends(text: string): string {
  return text.length <= MOST_CHARS ? text : `${text.slice(0, MOST_CHARS / 2)} ${text.slice(-MOST_CHARS / 2)}`;
}

/** JSON's own spelling undone, also inside of JSON inside of JSON. */
function unescaped(text: string): string {
  if (!text.includes("\\")) return text;
  return text
    .replaceAll(/\\+u([0-9a-fA-F]{4})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    .replaceAll(/\\+[nrtbf]/g, "\n");
}
