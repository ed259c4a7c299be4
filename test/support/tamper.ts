import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

/** What somebody with the NATS server's own rights does: the stream again, as it was but for one byte. */
export async function tamperJetstream(url: string, subject: string, change: (data: Uint8Array) => void): Promise<void> {
  const connection = await connect({ servers: url });
  try {
    const manager = await jetstreamManager(connection);
    const { config, state } = await manager.streams.info("INTERLOCK");
    const messages: { subject: string; data: Uint8Array }[] = [];
    for (let seq = state.first_seq; seq <= state.last_seq; seq++) {
      const message = await manager.streams.getMessage("INTERLOCK", { seq });
      if (message !== null) messages.push({ subject: message.subject, data: Uint8Array.from(message.data) });
    }
    await manager.streams.delete("INTERLOCK");
    await manager.streams.add({ ...config });
    const victim = messages.find((message) => message.subject === subject);
    if (victim === undefined) throw new Error(`there is no message on ${subject}`);
    change(victim.data);
    for (const message of messages) await connection.request(message.subject, message.data);
  } finally {
    await connection.close();
  }
}
