import { randomBytes } from "node:crypto";
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { SERVICE_NAMES, type ServiceName } from "../services/interlock.ts";
import { type ConfigInput, configSchema } from "../services/shared/config.ts";
import { initialiseState, readKeys } from "../services/shared/state-dir.ts";

/** What each service of compose.yaml is given; see secrets.sh. */

export type Passwords = Readonly<Record<ServiceName, string>>;

export function newPasswords(): Passwords {
  const each = () => randomBytes(24).toString("base64url");
  return { pdp: each(), ledger: each(), approvals: each(), runner: each(), broker: each() };
}

/** The file that nats.conf includes. */
export function natsUsers(passwords: Passwords): string {
  return SERVICE_NAMES.map((name) => `PASSWORD_${name.toUpperCase()} = "${passwords[name]}"\n`).join("");
}

/** How a service logs in to a NATS with nats.conf. */
export function natsLogin(name: ServiceName): { readonly user: string; readonly journal_user?: string } {
  return name === "runner" ? { user: name } : { user: name, journal_user: `${name}-journal` };
}

/** Where each container of compose.yaml finds its own folder. */
const MOUNTED = "/etc/interlock";

function configOf(name: ServiceName): ConfigInput {
  return {
    listen: "0.0.0.0:7443",
    state: "/var/lib/interlock",
    keys: join(MOUNTED, "keys.yaml"),
    nats: { url: "nats://nats:4222", ...natsLogin(name), password_file: join(MOUNTED, "nats-password") },
    ...(name === "broker" ? { signing_key: join(MOUNTED, "signing.pem") } : {}),
    ...(name === "approvals"
      ? {
          approvals: {
            listen: "0.0.0.0:7444",
            // Where compose.yaml publishes it.
            public_url: `http://127.0.0.1:${process.env["INTERLOCK_PAGE_PORT"] ?? "7444"}`,
            people: join(MOUNTED, "people.yaml"),
            page_key: join(MOUNTED, "page.key"),
          },
        }
      : {}),
    ...(name === "runner"
      ? {
          trusted_keys: [join(MOUNTED, "signing.pub.pem")],
          // Two runners of one name would clear away each other's containers where they share an engine.
          runner: { id: `runner-${randomBytes(4).toString("hex")}` },
        }
      : {}),
  };
}

function writeSecrets(dir: string): void {
  const made = join(dir, "made");
  const whole = configSchema.parse({ state: made });
  initialiseState(whole);
  const passwords = newPasswords();
  for (const name of SERVICE_NAMES) {
    const folder = join(dir, name);
    mkdirSync(folder);
    writeFileSync(join(folder, "nats-password"), passwords[name]);
    writeFileSync(join(folder, `${name}.yaml`), stringify(configOf(name)));
    // People and agents come in by the broker's edge only: the others' edges know nobody, and answer for their health.
    if (name === "broker") copyFileSync(join(made, "keys.yaml"), join(folder, "keys.yaml"));
    else writeFileSync(join(folder, "keys.yaml"), stringify({ keys: [] }));
  }
  copyFileSync(join(made, "signing.pem"), join(dir, "broker", "signing.pem"));
  copyFileSync(join(made, "page.key"), join(dir, "approvals", "page.key"));
  // Who may log in to the page, and their groups; without their keys.
  const people = readKeys(whole).flatMap((key) => {
    if (key.kind !== "person") return [];
    const { tenant, name, groups, roles } = key;
    return [{ tenant, name, groups: [...groups], roles: [...roles] }];
  });
  writeFileSync(join(dir, "approvals", "people.yaml"), stringify({ people }));
  for (const place of ["runner", "."]) copyFileSync(join(made, "signing.pub.pem"), join(dir, place, "signing.pub.pem"));
  copyFileSync(join(made, "credentials.yaml"), join(dir, "credentials.yaml"));
  mkdirSync(join(dir, "nats"));
  writeFileSync(join(dir, "nats", "nats-users.conf"), natsUsers(passwords));
  rmSync(made, { recursive: true });
}

if (import.meta.main) {
  const dir = process.argv[2];
  if (dir === undefined) throw new Error("usage: secrets.ts DIR");
  writeSecrets(dir);
}
