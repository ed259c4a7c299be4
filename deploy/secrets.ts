import { randomBytes } from "node:crypto";
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { SERVICE_NAMES } from "../services/interlock.ts";
import { type ConfigInput, configSchema } from "../services/shared/config.ts";
import { initialiseState } from "../services/shared/state-dir.ts";

/** See secrets.sh. */
const dir = process.argv[2];
if (dir === undefined) throw new Error("usage: secrets.ts DIR");
const MOUNTED = "/etc/interlock";

const made = join(dir, "made");
initialiseState(configSchema.parse({ state: made }));
const users: string[] = [];
for (const name of SERVICE_NAMES) {
  const folder = join(dir, name);
  mkdirSync(folder, { recursive: true });
  const password = randomBytes(24).toString("base64url");
  users.push(`PASSWORD_${name.toUpperCase()} = "${password}"`);
  writeFileSync(join(folder, "nats-password"), password);
  const give = (file: string) => copyFileSync(join(made, file), join(folder, file));
  give("keys.yaml");
  const config: ConfigInput = {
    listen: "0.0.0.0:7443",
    state: "/var/lib/interlock",
    keys: join(MOUNTED, "keys.yaml"),
    nats: { url: "nats://nats:4222", user: name, password_file: join(MOUNTED, "nats-password") },
  };
  if (name === "broker") {
    give("signing.pem");
    config.signing_key = join(MOUNTED, "signing.pem");
  }
  if (name === "runner") {
    give("signing.pub.pem");
    config.trusted_keys = [join(MOUNTED, "signing.pub.pem")];
  }
  writeFileSync(join(folder, `${name}.yaml`), stringify(config));
}
writeFileSync(join(dir, "nats-users.conf"), `${users.join("\n")}\n`);
copyFileSync(join(made, "credentials.yaml"), join(dir, "credentials.yaml"));
copyFileSync(join(made, "signing.pub.pem"), join(dir, "signing.pub.pem"));
rmSync(made, { recursive: true });
