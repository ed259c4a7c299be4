/**
 * Text that an agent wrote, made harmless for the person who reads it: what cannot be seen is shown, what looks like
 * something else is marked, and what could be clicked is broken. Pure. Nothing is ever left out.
 */

export type Revealed = { readonly text: string; readonly warnings: readonly Warning[] };
export type Warning = "invisible" | "look-alike" | "link";

export const WARNING_TEXTS: Readonly<Record<Warning, string>> = {
  invisible: "Has characters that cannot be seen; they are shown as ‹U+…›.",
  "look-alike": "Has letters of another alphabet that look like Latin ones; they are marked with ‹U+…›.",
  link: "Has a link; it is broken on purpose, so that nobody opens it from here.",
};

/**
 * Controls but for line breaks and tabs, formats such as the bidirectional ones, separators, unassigned and private
 * characters, spaces other than the common one, and what Unicode lets a font draw as nothing (Default_Ignorable_Code_Point
 * of Unicode 16, DerivedCoreProperties.txt; the Braille blank looks empty too).
 */
const INVISIBLE = /(?![\n\t ])[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Zl}\p{Zp}\p{Zs}\p{Default_Ignorable_Code_Point}\u2800]/gu;
/** Letters drawn as Latin ones in other clothes: full-width, mathematical, superscript. */
const DRESSED = /[\uff01-\uff5e\u{1d400}-\u{1d7ff}\u2100-\u214f\u2460-\u24ff]/gu;
const WORD = /[\p{L}\p{M}\p{N}_-]+/gu;
const LATIN = /\p{Script=Latin}/u;
const FOREIGN =
  /[\p{Script=Cyrillic}\p{Script=Greek}\p{Script=Armenian}\p{Script=Cherokee}\p{Script=Lisu}\p{Script=Coptic}]/gu;
/** Cyrillic and Greek letters drawn as Latin ones: of Unicode's confusables.txt, those that a word can be made of. */
const TWINS = /^[асеорхуіјѕԁһԛԝӏАВЕКМНОРСТУХІЈЅԌΑΒΕΖΗΙΚΜΝΟΡΤΥΧοανρκυι0-9_-]+$/u;
const SCHEME = /\b(https?|ftp|file|data|javascript|vbscript|mailto|slack|tel)(:\/*)/giu;
const HOST = /((?:[\p{L}\p{N}-]+\.)+[\p{L}]{2,})(?=[/:?#])|\b(www\.(?:[\p{L}\p{N}-]+\.)*[\p{L}]{2,})/gu;

export function reveal(text: string): Revealed {
  const warnings = new Set<Warning>();
  const marked = (warning: Warning, keep: boolean) => (c: string) => {
    warnings.add(warning);
    const code = `‹U+${(c.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}›`;
    return keep ? c + code : code;
  };
  const seen = text.replace(INVISIBLE, marked("invisible", false));
  const plain = seen.replace(WORD, (word) => {
    const disguised = (LATIN.test(word) && FOREIGN.test(word)) || TWINS.test(word);
    FOREIGN.lastIndex = 0;
    return disguised ? word.replace(FOREIGN, marked("look-alike", true)) : word;
  });
  const undressed = plain.replace(DRESSED, marked("look-alike", true));
  const broken = undressed
    .replace(SCHEME, (_, scheme: string, rest: string) => {
      warnings.add("link");
      return `${scheme.replace(/t/i, "x").replace(/t/i, "x")}[${rest}]`;
    })
    .replace(HOST, (host) => {
      warnings.add("link");
      return host.replaceAll(".", "[.]");
    });
  return { text: broken, warnings: [...warnings] };
}
