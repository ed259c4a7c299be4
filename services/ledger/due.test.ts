import fc from "fast-check";
import { expect, it } from "vitest";
import { addLease, dueLeases, type Lease, leaseGrew, removeLease } from "./due.ts";

type Item = Lease & { readonly id: number };

const operation = fc.record({
  kind: fc.constantFrom("add", "add", "remove", "grow"),
  at: fc.nat(1000),
  ms: fc.nat(20),
});

it("finds what a sorted list would find, whatever was added, removed and made longer", () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 100 }), fc.nat(30), fc.nat(10), (operations, nowMs, max) => {
      const heap: Item[] = [];
      const list: Item[] = [];
      for (const [id, { kind, at, ms }] of operations.entries()) {
        const found = list[at % Math.max(1, list.length)];
        if (kind === "add") {
          const item = { id, expiresAtMs: ms, heapIndex: 0 };
          list.push(item);
          addLease(heap, item);
        } else if (found !== undefined && kind === "grow") {
          found.expiresAtMs += ms;
          leaseGrew(heap, found);
        } else if (found !== undefined) {
          list.splice(list.indexOf(found), 1);
          removeLease(heap, found);
        }
        expect(heap[0]?.expiresAtMs).toBe(list.map((item) => item.expiresAtMs).sort((a, b) => a - b)[0]);
      }
      const due = list.filter((item) => item.expiresAtMs <= nowMs).map((item) => item.id);
      const all = dueLeases(heap, nowMs, list.length + 1).map((item) => item.id);
      expect(all.sort((a, b) => a - b)).toEqual(due.sort((a, b) => a - b));
      const some = dueLeases(heap, nowMs, max);
      expect(some.length).toBe(Math.min(max, due.length));
      expect(some.every((item) => due.includes(item.id))).toBe(true);
    }),
  );
});
