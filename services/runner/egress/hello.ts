import type { Socket } from "node:net";
import { getExtensionData, NonTlsError, readTlsClientHello } from "read-tls-client-hello";
import { EgressRefusal } from "./refusal.ts";

const HELLO_MS = 10_000;
const SERVER_NAME = 0;
/** RFC 9849: the name that is meant would be hidden. */
const ENCRYPTED_CLIENT_HELLO = 0xfe0d;

/**
 * Reads a connection's first words and puts them back.
 * @throws EgressRefusal unless they are TLS that plainly names this host.
 */
export async function expectServerName(socket: Socket, host: string): Promise<void> {
  const timer = setTimeout(() => socket.destroy(), HELLO_MS);
  try {
    const hello = await readTlsClientHello(socket);
    if (hello.extensions.some(({ id }) => id === ENCRYPTED_CLIENT_HELLO)) {
      throw new EgressRefusal("SNI_ENCRYPTED", "The TLS client hides the name it means (ECH); turn that off.");
    }
    const named = getExtensionData(hello, SERVER_NAME) as { serverName?: string } | null | undefined;
    if (named?.serverName === undefined) {
      throw new EgressRefusal("SNI_MISSING", `The TLS client names no server; it must name ${host}.`);
    }
    if (named.serverName.toLowerCase() !== host) {
      throw new EgressRefusal("SNI_MISMATCH", `The TLS client names another server than ${host}.`);
    }
  } catch (error) {
    if (error instanceof EgressRefusal) throw error;
    const what = error instanceof NonTlsError ? "is not TLS" : "ended before it said what it is";
    throw new EgressRefusal("NOT_TLS", `What goes to ${host} ${what}; only TLS goes through a tunnel.`);
  } finally {
    clearTimeout(timer);
  }
}
