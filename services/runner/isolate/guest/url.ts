import { define, defineProperty, demand, parse, stringify } from "./host.ts";

// Addresses. The parts are what the host's parser says they are.
type Parts = Record<string, string>;
const SETTABLE = ["protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"];
class URLSearchParams {
  #pairs: [string, string][];
  #changed: (search: string) => void;
  constructor(init: unknown = "", changed: (search: string) => void = () => {}) {
    this.#changed = changed;
    if (typeof init === "string") this.#pairs = parse(demand("query.parse", init)) as [string, string][];
    else if (init instanceof URLSearchParams) this.#pairs = [...init.#pairs];
    else {
      const pairs = Array.isArray(init) ? init : Object.entries(init as object);
      this.#pairs = pairs.map(([key, value]) => [String(key), String(value)]);
    }
  }
  get size(): number {
    return this.#pairs.length;
  }
  get(name: string): string | null {
    return this.#pairs.find(([key]) => key === name)?.[1] ?? null;
  }
  getAll(name: string): string[] {
    return this.#pairs.filter(([key]) => key === name).map(([, value]) => value);
  }
  has(name: string): boolean {
    return this.#pairs.some(([key]) => key === name);
  }
  append(name: unknown, value: unknown): void {
    this.#replace([...this.#pairs, [String(name), String(value)]]);
  }
  set(name: unknown, value: unknown): void {
    const key = String(name);
    const at = this.#pairs.findIndex(([other]) => other === key);
    const others = this.#pairs.filter(([other], i) => other !== key || i === at);
    if (at < 0) this.#replace([...others, [key, String(value)]]);
    else this.#replace(others.map((pair, i) => (i === at ? [key, String(value)] : pair)));
  }
  delete(name: unknown): void {
    this.#replace(this.#pairs.filter(([key]) => key !== String(name)));
  }
  sort(): void {
    this.#replace(this.#pairs.toSorted(([a], [b]) => (a < b ? -1 : Number(a > b))));
  }
  forEach(run: (value: string, name: string) => void): void {
    for (const [name, value] of this.#pairs) run(value, name);
  }
  *entries(): Generator<[string, string]> {
    for (const [name, value] of this.#pairs) yield [name, value];
  }
  *keys(): Generator<string> {
    for (const [name] of this.#pairs) yield name;
  }
  *values(): Generator<string> {
    for (const [, value] of this.#pairs) yield value;
  }
  [Symbol.iterator](): Generator<[string, string]> {
    return this.entries();
  }
  toString(): string {
    return demand("query.format", stringify(this.#pairs));
  }
  #replace(pairs: [string, string][]): void {
    this.#pairs = pairs;
    this.#changed(this.toString());
  }
}
export class URL {
  #parts: Parts;
  constructor(href: unknown, base?: unknown) {
    this.#parts = parse(demand("url.parse", String(href), base === undefined ? "" : String(base))) as Parts;
  }
  static canParse(href: unknown, base?: unknown): boolean {
    try {
      return new URL(href, base) instanceof URL;
    } catch {
      return false;
    }
  }
  static read(url: URL, part: string): string {
    return url.#parts[part] ?? "";
  }
  static write(url: URL, part: string, value: string): void {
    url.#parts = parse(demand("url.set", url.href, stringify([part, value]))) as Parts;
  }
  get href(): string {
    return this.#parts["href"] ?? "";
  }
  set href(value: string) {
    this.#parts = parse(demand("url.parse", String(value))) as Parts;
  }
  get origin(): string {
    return this.#parts["origin"] ?? "";
  }
  get searchParams(): URLSearchParams {
    return new URLSearchParams(this.#parts["search"], (search) => write(this, "search", search));
  }
  toString(): string {
    return this.href;
  }
  toJSON(): string {
    return this.href;
  }
}
const { read, write } = URL;
for (const name of ["read", "write"] as const) delete (URL as Partial<typeof URL>)[name];
for (const part of SETTABLE) {
  defineProperty(URL.prototype, part, {
    configurable: true,
    enumerable: true,
    get(this: URL) {
      return read(this, part);
    },
    set(this: URL, value: unknown) {
      write(this, part, String(value));
    },
  });
}
define("URL", URL);
define("URLSearchParams", URLSearchParams);
