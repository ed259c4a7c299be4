import type { Journal } from "../../services/shared/journal/journal.ts";

/** A broker that is cut off, as by a crash. */

/** The journal, until the signal aborts. */
export function cuttable(journal: Journal, cut: AbortSignal): Journal {
  return new Proxy(journal, {
    get: (target, key) => {
      const member: unknown = Reflect.get(target, key);
      if (typeof member !== "function") return member;
      const reads = key === "read" || key === "watch" || key === "streams";
      return (...given: readonly unknown[]) => {
        if (!cut.aborted) return Reflect.apply(member, target, given);
        const error = new Error("crashed by the test");
        return reads ? throwing(error) : Promise.reject(error);
      };
    },
  });
}

// biome-ignore lint/correctness/useYield: it throws before its first item
export async function* throwing(error: Error): AsyncGenerator<never> {
  throw error;
}
