import { statSync } from "node:fs";
import { z } from "zod";
import { keysSchema } from "../shared/config.ts";
import type { Log } from "../shared/log.ts";
import { NAME } from "../shared/names.ts";
import { readYaml } from "../shared/yaml-file.ts";

/**
 * Who is who: which person a verified identity from outside belongs to, and which groups they are in now. Read from
 * people.yaml and from the people of keys.yaml, and read again when a file changes: who has left a group is out at once.
 */

const name = z.string().regex(NAME, "use 1 to 64 letters, digits, '-' or '_', the first a letter or digit");

const person = z.strictObject({
  tenant: name,
  name,
  groups: z.array(name).max(64).default([]),
  roles: z.array(z.enum(["reviewer", "operator"])).default(["reviewer"]),
  slack: z
    .string()
    .regex(/^[UW][A-Z0-9]{2,32}$/, "give the member id, e.g. U012AB3CD")
    .optional()
    .describe("Slack's member id; never the display name"),
  oidc: z.string().min(1).max(255).optional().describe("the `sub` claim at the identity provider"),
  email: z.email().optional().describe("taken from the identity provider only when it says it is verified"),
});

export const peopleSchema = z.strictObject({ people: z.array(person).max(10_000) });
export type Entry = z.output<typeof person>;

export type People = {
  readonly find: (tenant: string, name: string) => Entry | undefined;
  readonly bySlack: (tenant: string, id: string) => Entry | undefined;
  /** By subject first; by e-mail only when the provider vouches for it. */
  readonly byOidc: (who: { readonly subject: string; readonly verifiedEmail: string | undefined }) => Entry | undefined;
  readonly inGroups: (tenant: string, groups: readonly string[]) => readonly Entry[];
};

/** @throws FileProblems when a file is malformed at the start. Later the last good state stays, and the log says so. */
export function openPeople(files: { readonly people: string | undefined; readonly keys: string }, log: Log): People {
  let stamp = stampOf(files);
  let entries = read(files);
  const current = (): readonly Entry[] => {
    const now = stampOf(files);
    if (now === stamp) return entries;
    stamp = now;
    try {
      entries = read(files);
    } catch (error) {
      log.error({ err: error }, "people.unreadable");
    }
    return entries;
  };
  return {
    find: (tenant, who) => current().find((one) => one.tenant === tenant && one.name === who),
    bySlack: (tenant, id) => only(current().filter((one) => one.tenant === tenant && one.slack === id)),
    byOidc: ({ subject, verifiedEmail }) => {
      const bySubject = current().filter((one) => one.oidc === subject);
      if (bySubject.length > 0) return only(bySubject);
      if (verifiedEmail === undefined) return undefined;
      const email = verifiedEmail.toLowerCase();
      return only(current().filter((one) => one.oidc === undefined && one.email?.toLowerCase() === email));
    },
    inGroups: (tenant, groups) =>
      current().filter(
        (one) => one.tenant === tenant && (groups.length === 0 || one.groups.some((group) => groups.includes(group))),
      ),
  };
}

/** For a service without people of its own: everybody comes with a key. */
export const NOBODY: People = {
  find: () => undefined,
  bySlack: () => undefined,
  byOidc: () => undefined,
  inGroups: () => [],
};

/** Two people with one identity are nobody. */
function only(found: readonly Entry[]): Entry | undefined {
  return found.length === 1 ? found[0] : undefined;
}

function read({ people, keys }: { readonly people: string | undefined; readonly keys: string }): readonly Entry[] {
  const own = people === undefined ? [] : readYaml(people, peopleSchema).value.people;
  const known = new Set(own.map((one) => `${one.tenant}/${one.name}`));
  const keyed = readYaml(keys, keysSchema).value.keys.flatMap((key): Entry[] =>
    key.kind === "person" && !known.has(`${key.tenant}/${key.name}`)
      ? [{ tenant: key.tenant, name: key.name, groups: key.groups, roles: key.roles }]
      : [],
  );
  return [...own, ...keyed];
}

/** Changes when a file does. */
function stampOf({ people, keys }: { readonly people: string | undefined; readonly keys: string }): string {
  return [people, keys]
    .map((file) => {
      if (file === undefined) return "";
      const found = statSync(file, { throwIfNoEntry: false });
      return found === undefined ? "gone" : `${found.mtimeMs} ${found.size} ${found.ino}`;
    })
    .join("|");
}
