/**
 * A binary heap of leases, the earliest end first. Every item knows its own place, so that one which ends early leaves
 * at once: the heap is never larger than the number of open holds.
 */
export type Lease = { expiresAtMs: number; heapIndex: number };

export function addLease<T extends Lease>(heap: T[], item: T): void {
  item.heapIndex = heap.length;
  heap.push(item);
  siftUp(heap, item);
}

export function removeLease<T extends Lease>(heap: T[], item: T): void {
  const last = heap.pop();
  if (last === undefined || last === item) return;
  place(heap, item.heapIndex, last);
  siftUp(heap, last);
  siftDown(heap, last);
}

/** Call after a lease was made longer. */
export function leaseGrew<T extends Lease>(heap: T[], item: T): void {
  siftDown(heap, item);
}

/** Up to `max` leases that are over at `nowMs`. Costs as much as it finds: below a lease that still runs, all run. */
export function dueLeases<T extends Lease>(heap: readonly T[], nowMs: number, max: number): T[] {
  const found: T[] = [];
  const [first] = heap;
  if (first === undefined || first.expiresAtMs > nowMs) return found;
  const open = [0];
  for (let at = open.pop(); at !== undefined && found.length < max; at = open.pop()) {
    const item = heap[at];
    if (item === undefined || item.expiresAtMs > nowMs) continue;
    found.push(item);
    open.push(2 * at + 2, 2 * at + 1);
  }
  return found;
}

function siftUp<T extends Lease>(heap: T[], item: T): void {
  for (let parent = heap[(item.heapIndex - 1) >> 1]; item.heapIndex > 0 && parent !== undefined; ) {
    if (parent.expiresAtMs <= item.expiresAtMs) return;
    swap(heap, parent, item);
    parent = heap[(item.heapIndex - 1) >> 1];
  }
}

function siftDown<T extends Lease>(heap: T[], item: T): void {
  for (;;) {
    const left = heap[2 * item.heapIndex + 1];
    const right = heap[2 * item.heapIndex + 2];
    const child = right !== undefined && left !== undefined && right.expiresAtMs < left.expiresAtMs ? right : left;
    if (child === undefined || child.expiresAtMs >= item.expiresAtMs) return;
    swap(heap, item, child);
  }
}

function swap<T extends Lease>(heap: T[], a: T, b: T): void {
  const index = a.heapIndex;
  place(heap, b.heapIndex, a);
  place(heap, index, b);
}

function place<T extends Lease>(heap: T[], index: number, item: T): void {
  heap[index] = item;
  item.heapIndex = index;
}
