import { type Logger, pino } from "pino";

export type Log = Logger;

/** JSON lines on stderr; stdout belongs to the command. One wide line per finished operation. */
export function createLog(options: { level: string; service: string }): Log {
  return pino(
    {
      level: options.level,
      base: { service: options.service },
      messageKey: "event",
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    pino.destination({ dest: 2, sync: false }),
  );
}

/** For tests and tools that want none. */
export const silentLog: Log = pino({ level: "silent" });
