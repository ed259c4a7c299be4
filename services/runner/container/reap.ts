import type Docker from "dockerode";
import { answered, statusOf } from "./faults.ts";
import { ownerState } from "./owner.ts";

/** What every container carries, so that it can be told whose it is when nobody remembers. */
export type Marks = {
  readonly runnerId: string;
  readonly bootId: string;
  readonly owner: string;
};

const LABEL = "interlock";

export function labelsOf(marks: Marks, expiresAtMs: number): Record<string, string> {
  return {
    [`${LABEL}.runner`]: marks.runnerId,
    [`${LABEL}.boot`]: marks.bootId,
    [`${LABEL}.owner`]: marks.owner,
    [`${LABEL}.expires`]: String(expiresAtMs),
  };
}

/**
 * Removes what this runner left: of this boot what is no longer under way, of an earlier one when its process is dead,
 * and whatever has outlived its time. What a live process uses stays, also when it runs under the same id.
 * @returns how many.
 */
export async function reap(
  docker: Docker,
  marks: Marks,
  underWay: ReadonlySet<string>,
  nowMs: number,
): Promise<number> {
  const filters = { label: [`${LABEL}.runner=${marks.runnerId}`] };
  const containers = await answered(docker.listContainers({ all: true, filters }));
  const left = containers.filter(({ Names, Labels }) => {
    return !Names.some((name) => underWay.has(name.slice(1))) && isLeftOver(Labels, marks, nowMs);
  });
  const removals = left.map(({ Id }) => answered(docker.getContainer(Id).remove({ force: true, v: true })));
  const faults = (await Promise.allSettled(removals)).filter((result) => result.status === "rejected");
  const failed = faults.find(({ reason }) => !REMOVED_MEANWHILE.includes(statusOf(reason)));
  if (failed !== undefined) throw failed.reason;
  return left.length;
}

/** No such container; another removal of it is under way. */
const REMOVED_MEANWHILE: readonly (number | undefined)[] = [404, 409];

function isLeftOver(labels: Readonly<Record<string, string>>, marks: Marks, nowMs: number): boolean {
  if (labels[`${LABEL}.boot`] === marks.bootId) return true;
  if (Number(labels[`${LABEL}.expires`] ?? 0) < nowMs) return true;
  return ownerState(labels[`${LABEL}.owner`] ?? "") === "dead";
}
