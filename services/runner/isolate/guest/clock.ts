import { apply, construct, define, defineProperty, freeze, RealDate, realNow } from "./host.ts";

// Time, in steps of STEP_MS: too coarse to tell a cache from a miss.
const STEP_MS = 10;
export const coarse = (): number => {
  const ms = realNow();
  return ms - (ms % STEP_MS);
};
const CoarseDate = function (this: unknown, ...args: unknown[]): unknown {
  if (new.target === undefined) return new RealDate(coarse()).toString();
  return construct(RealDate, args.length === 0 ? [coarse()] : args, new.target);
};
for (const name of ["parse", "UTC"] as const) define(name, RealDate[name], CoarseDate);
define("now", coarse, CoarseDate);
defineProperty(CoarseDate, "prototype", { value: RealDate.prototype, writable: false });
defineProperty(CoarseDate, "name", { value: "Date" });
define("constructor", CoarseDate, RealDate.prototype);
define("Date", CoarseDate);
const startedMs = coarse();
define("performance", freeze({ timeOrigin: startedMs, now: () => coarse() - startedMs }));
// A formatter without a date reads the clock by itself.
const formatter = Intl.DateTimeFormat.prototype;
const { formatToParts } = formatter;
const format = Object.getOwnPropertyDescriptor(formatter, "format")?.get as () => (date: unknown) => string;
define(
  "formatToParts",
  function (this: Intl.DateTimeFormat, date?: Date) {
    return apply(formatToParts, this, [date ?? coarse()]);
  },
  formatter,
);
defineProperty(formatter, "format", {
  configurable: true,
  get(this: Intl.DateTimeFormat) {
    const bound = apply(format, this, []);
    return (date?: Date) => bound(date ?? coarse());
  },
});
