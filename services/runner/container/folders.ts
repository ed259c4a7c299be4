import { mkdirSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ownerState } from "./owner.ts";

const PREFIX = "interlock-";

/** Directories on the host, one a sandbox, for the sockets of their ways out. Nobody else can enter the one they are in. */
export type Folders = Disposable & {
  open(name: string): string;
  remove(name: string): void;
};

/** Removes what dead owners left. @throws Error when a directory of our name is not ours. */
export function openFolders(owner: string, parent: string = tmpdir()): Folders {
  for (const name of readdirSync(parent)) {
    if (name.startsWith(PREFIX) && OWNER.test(name) && ownerState(name.slice(PREFIX.length)) === "dead") {
      rmSync(join(parent, name), { recursive: true, force: true });
    }
  }
  const root = join(parent, PREFIX + owner);
  const own = new Set<string>();
  const remove = (name: string): void => {
    rmSync(join(root, name), { recursive: true, force: true });
    own.delete(name);
  };
  return {
    open: (name) => {
      makeRoot(root);
      const folder = join(root, name);
      mkdirSync(folder, { mode: 0o755 });
      own.add(name);
      return folder;
    },
    remove,
    [Symbol.dispose]: () => {
      for (const name of own) remove(name);
      try {
        rmdirSync(root);
      } catch {
        // never made, or another backend of this process has some in it
      }
    },
  };
}

/** As `thisOwner` writes it: other programs' directories may begin like ours. */
const OWNER = /^interlock-[0-9a-f]{8}\.\d*-\d+-\d+$/;

/** Whoever made one of this name first could look into it. */
function makeRoot(root: string): void {
  try {
    mkdirSync(root, { mode: 0o700 });
    ours.add(root);
  } catch (error) {
    const isThere = error instanceof Error && "code" in error && error.code === "EEXIST";
    if (!isThere || !ours.has(root)) throw error;
  }
}
const ours = new Set<string>();
