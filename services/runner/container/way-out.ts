import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import type { RunSpec } from "../backend.ts";
import type { CallSecrets } from "../call-secrets.ts";
import { Authority } from "../egress/authority.ts";
import { EgressProxy, mustRead, type WayOutOptions } from "../egress/proxy.ts";
import { EGRESS_MOUNT } from "./create.ts";
import { placeFault } from "./faults.ts";

/**
 * Opens a sandbox's way out for one call: it is closed with the call, whatever still runs inside.
 * @throws RpcError FAILED_PRECONDITION when its files cannot be made; nothing has started.
 */
export async function openWayOut(
  folder: string,
  spec: Pick<RunSpec, "egress" | "limits">,
  { credentials, newByteMasker }: CallSecrets,
  { resolve, extraCa, now }: WayOutOptions,
): Promise<EgressProxy> {
  const authority = mustRead(spec.egress, credentials) ? await Authority.create(now()) : undefined;
  const trusted = [...(authority === undefined ? [] : [authority.certificate]), ...extraCa, ...rootCertificates];
  try {
    writeFileSync(join(folder, "ca.pem"), `${trusted.join("\n")}\n`);
    return await EgressProxy.listen({
      ...{ socketPath: join(folder, "egress.sock"), rules: spec.egress, mostBytes: spec.limits.egressBytes },
      ...{ credentials, newMasker: newByteMasker, authority, resolve, extraCa, now },
    });
  } catch (error) {
    throw placeFault(error);
  }
}

const PROXY = "http://127.0.0.1:3128";
const TRUST = `${EGRESS_MOUNT}/ca.pem`;

/** What makes ordinary programs take the way out. */
export const WAY_OUT_ENV: Readonly<Record<string, string>> = {
  ...{ HTTP_PROXY: PROXY, HTTPS_PROXY: PROXY, http_proxy: PROXY, https_proxy: PROXY },
  ...{ NO_PROXY: "localhost,127.0.0.1", no_proxy: "localhost,127.0.0.1" },
  ...{ SSL_CERT_FILE: TRUST, CURL_CA_BUNDLE: TRUST, REQUESTS_CA_BUNDLE: TRUST, PIP_CERT: TRUST },
  ...{ GIT_SSL_CAINFO: TRUST, NODE_EXTRA_CA_CERTS: TRUST },
};
