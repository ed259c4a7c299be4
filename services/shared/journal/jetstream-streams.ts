import {
  DiscardPolicy,
  type JetStreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "@nats-io/jetstream";

/** The two streams of a journal on JetStream: the records, and what may be written again at any time. */

export const STREAM = "INTERLOCK";
export const STATE_STREAM = "INTERLOCK_STATE";
export const SUBJECT = "interlock.journal.";
export const STATE_SUBJECT = "interlock.state.";

/** @throws Error when NATS has no JetStream, or has a stream of our name that is another's. */
export async function ensureStreams(manager: JetStreamManager, replicas: 1 | 3 | 5): Promise<void> {
  const common = {
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    num_replicas: replicas,
    allow_direct: false,
  };
  // Nobody removes or replaces a record through the API; a full store refuses rather than forgets.
  const evidence = {
    ...{ deny_delete: true, deny_purge: true, discard: DiscardPolicy.New },
    ...{ max_age: 0, max_msgs_per_subject: -1 },
  };
  await ensureStream(manager, { ...common, ...evidence, name: STREAM, subjects: [`${SUBJECT}>`] });
  await ensureStream(manager, {
    ...common,
    name: STATE_STREAM,
    subjects: [`${STATE_SUBJECT}>`],
    max_msgs_per_subject: 1,
  });
}

type Wanted = Partial<StreamConfig> & { readonly name: string; readonly subjects: string[] };

/** Two that open at once both succeed: the same configuration twice is no error to JetStream. */
async function ensureStream(manager: JetStreamManager, wanted: Wanted): Promise<void> {
  let found: StreamConfig;
  try {
    found = (await manager.streams.add(wanted)).config;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    try {
      found = (await manager.streams.info(wanted.name)).config;
    } catch {
      throw new Error(
        `NATS has no JetStream that can be used here: ${why}. Start nats-server with jetstream enabled.`,
        { cause: error },
      );
    }
  }
  for (const [key, value] of Object.entries(wanted)) {
    const there = found[key as keyof StreamConfig];
    if (JSON.stringify(there) === JSON.stringify(value)) continue;
    throw new Error(
      `the JetStream stream ${wanted.name} has ${key} ${JSON.stringify(there)}, not ${JSON.stringify(value)}: it was made by somebody else, or for another number of replicas. Rename or edit it.`,
    );
  }
}
