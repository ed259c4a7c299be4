import fc from "fast-check";
import { expect } from "vitest";
import { chainRecords } from "../../services/shared/journal/chain.ts";
import { Conflict, GENESIS, type Head } from "../../services/shared/journal/journal.ts";
import { chained, hex, names, read } from "./journal-records.ts";
import type { OpenJournal } from "./journal-suite.ts";

/** Random appends with right and stale heads, against a map of arrays. */
export async function journalModel(open: OpenJournal): Promise<void> {
  const command = fc.record({
    stream: fc.constantFrom("ledger.a", "ledger.b", "session.a.s"),
    bodies: fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 }), { minLength: 1, maxLength: 4 }),
    back: fc.nat({ max: 2 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(command, { minLength: 1, maxLength: 4 }), { maxLength: 12 }), async (rounds) => {
      await using opened = await open();
      const { journal } = opened;
      const heads = new Map<string, Head[]>();
      const bodies = new Map<string, string[]>();
      for (const round of rounds) {
        // One round at once: of those that name the same head, one wins.
        const results = await Promise.allSettled(
          round.map(({ stream, bodies: list, back }) =>
            journal.append(
              stream,
              ago(heads.get(stream), back),
              list.map((body) => ({ timeMs: 5, body })),
            ),
          ),
        );
        const won = new Set<string>();
        for (const [i, result] of results.entries()) {
          const { stream, bodies: list, back } = round[i] ?? { stream: "", bodies: [], back: 0 };
          const right = back === 0 || (heads.get(stream) ?? []).length === 0;
          if (result.status === "rejected") {
            expect(result.reason).toBeInstanceOf(Conflict);
            continue;
          }
          expect(right && !won.has(stream)).toBe(true);
          won.add(stream);
          bodies.set(stream, [...(bodies.get(stream) ?? []), ...list.map(hex)]);
          expect(result.value.seq).toBe(bodies.get(stream)?.length);
        }
        for (const { stream, back } of round) {
          if (back === 0 || (heads.get(stream) ?? []).length === 0) expect(won.has(stream)).toBe(true);
        }
        for (const [i, result] of results.entries()) {
          const stream = round[i]?.stream ?? "";
          if (result.status === "fulfilled") heads.set(stream, [...(heads.get(stream) ?? []), result.value]);
        }
      }
      expect(await names(journal, "")).toEqual([...bodies.keys()].sort((a, b) => (a < b ? -1 : 1)));
      for (const [stream, list] of bodies) {
        const stored = await read(journal, stream);
        expect(stored.map(({ body }) => hex(body))).toEqual(list);
        expect(stored.map(chained)).toEqual(chainRecords(stream, GENESIS, stored).map(chained));
      }
    }),
    { numRuns: 25 },
  );
}

function ago(heads: readonly Head[] | undefined, back: number): Head {
  return heads?.at(-1 - back) ?? GENESIS;
}
