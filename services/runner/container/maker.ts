import { randomBytes } from "node:crypto";
import type Docker from "dockerode";
import type { CgroupRoot } from "./cgroup.ts";
import type { SandboxKind } from "./create.ts";
import { placeFault } from "./faults.ts";
import type { Folders } from "./folders.ts";
import { labelsOf, type Marks } from "./reap.ts";
import { Sandbox } from "./sandbox.ts";

/** A kind of sandbox, and what it is called where it is refused. */
export type MadeKind = SandboxKind & { readonly image: string; readonly metered: boolean };

export type MakerOptions = {
  readonly docker: Docker;
  readonly marks: Marks;
  readonly seccomp: string;
  readonly cgroups: CgroupRoot | undefined;
  readonly folders: Folders;
  readonly now: () => number;
};

/** How long after its time a container may be held for a leftover. */
const EXPIRY_SLACK_MS = 120_000;

/** Makes sandboxes with all that belongs to one on this machine, and takes all of it away with them. */
export class SandboxMaker {
  readonly #options: MakerOptions;
  readonly #removing = new Set<Promise<void>>();
  /** The names of all that are not removed yet. */
  readonly underWay = new Set<string>();

  constructor(options: MakerOptions) {
    this.#options = options;
  }

  /** @throws RpcError FAILED_PRECONDITION; then nothing is left of it. */
  async make(kind: MadeKind, lifeMs: number): Promise<Sandbox> {
    const { docker, marks, seccomp, cgroups, folders, now } = this.#options;
    const name = randomBytes(8).toString("hex");
    const cgroup = kind.metered ? cgroups?.open(name) : undefined;
    const egressFolder = kind.egress ? openFolder(folders, name) : undefined;
    const labels = labelsOf(marks, now() + lifeMs + EXPIRY_SLACK_MS);
    const lifetimeSeconds = Math.ceil(lifeMs / 1000);
    const place = { name, labels, seccomp, cgroupParent: cgroup?.path, egressFolder, lifetimeSeconds };
    this.underWay.add(name);
    try {
      const sandbox = await Sandbox.start(docker, { ...kind, ...place }, cgroup, kind.image);
      void sandbox.gone.then(() => this.remove(sandbox));
      return sandbox;
    } catch (error) {
      this.underWay.delete(name);
      folders.remove(name);
      throw error;
    }
  }

  remove(sandbox: Sandbox): Promise<void> {
    const removed = sandbox[Symbol.asyncDispose]().finally(() => {
      this.#removing.delete(removed);
      this.underWay.delete(sandbox.name);
      this.#options.folders.remove(sandbox.name);
    });
    this.#removing.add(removed);
    return removed;
  }

  get removing(): number {
    return this.#removing.size;
  }

  /** Once nothing is being removed. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#removing);
  }
}

/** @throws RpcError FAILED_PRECONDITION */
function openFolder(folders: Folders, name: string): string {
  try {
    return folders.open(name);
  } catch (error) {
    throw placeFault(error);
  }
}
