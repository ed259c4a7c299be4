/** One line of Casbin's CSV, or what is wrong with it. */
export type CsvLine =
  | { readonly kind: "fields"; readonly fields: readonly string[] }
  | { readonly kind: "blank" }
  | { readonly kind: "broken"; readonly message: string };

/**
 * Stricter than Casbin's own reader, and equal to it on what it accepts: fields are trimmed; one that holds a comma is
 * quoted, a quote inside it doubled. Casbin would guess where a quote or a bracket is out of place.
 */
export function parseCsvLine(line: string): CsvLine {
  const text = line.trim();
  if (text === "" || text.startsWith("#")) return { kind: "blank" };
  if (/[\p{Cc}]/u.test(text.replaceAll("\t", " "))) return broken("It has a control character; remove it");
  const fields: string[] = [];
  let rest = text;
  for (;;) {
    const quoted = rest.startsWith('"');
    const match = quoted ? /^"((?:[^"]|"")*)"\s*(,|$)/.exec(rest) : /^([^,"]*)(,|$)/.exec(rest);
    if (match === null) {
      return broken(
        quoted
          ? 'A quoted field does not end; close it with " before the next comma, and double a quote inside it'
          : "A quote stands in the middle of a field; quote the whole field and use single quotes inside it",
      );
    }
    const field = (match[1] ?? "").replaceAll('""', '"').trim();
    if (unbalanced(field)) return broken("Brackets do not pair in a field, which Casbin's reader needs; pair them");
    fields.push(field);
    if (match[2] === "") return { kind: "fields", fields };
    rest = rest.slice(match[0].length).trimStart();
  }
}

/** Casbin's reader joins fields until round brackets pair. */
function unbalanced(field: string): boolean {
  return field.split("(").length !== field.split(")").length;
}

function broken(message: string): CsvLine {
  return { kind: "broken", message: `${message}.` };
}
