import type Docker from "dockerode";
import { answered } from "./faults.ts";

/** What all processes of a run have used so far. */
export type Sample = { readonly cpuMs: number; readonly peakMemoryBytes: number };

export type Meter = { sample(): Promise<Sample> };

export const NOTHING_USED: Sample = { cpuMs: 0, peakMemoryBytes: 0 };

/** Through the engine, where it must do: it knows a container only while that runs, so short runs measure as nothing. */
export function engineMeter(container: Docker.Container): Meter {
  return {
    sample: async () => {
      const stats = await answered(container.stats({ stream: false, "one-shot": true }));
      return {
        cpuMs: Math.ceil((stats.cpu_stats?.cpu_usage?.total_usage ?? 0) / 1e6),
        peakMemoryBytes: stats.memory_stats?.max_usage ?? stats.memory_stats?.usage ?? 0,
      };
    },
  };
}

/** What is used from now on. */
export function sinceNow(meter: Meter, before: Sample): Meter {
  return {
    sample: async () => {
      const { cpuMs, peakMemoryBytes } = await meter.sample();
      return { cpuMs: Math.max(0, cpuMs - before.cpuMs), peakMemoryBytes };
    },
  };
}

/** Samples until it is stopped; what was used never sinks. */
export class Metering {
  readonly #meter: Meter;
  readonly #onSample: (used: Sample) => void;
  #used = NOTHING_USED;
  readonly #timer: NodeJS.Timeout;
  #stopped: Promise<Sample> | undefined;

  constructor(meter: Meter, everyMs: number, onSample: (used: Sample) => void) {
    this.#meter = meter;
    this.#onSample = onSample;
    this.#timer = setInterval(() => void this.#sample(), everyMs);
  }

  /** Once more, then no longer. */
  stop(): Promise<Sample> {
    clearInterval(this.#timer);
    this.#stopped ??= this.#sample().then(() => this.#used);
    return this.#stopped;
  }

  async #sample(): Promise<void> {
    const sample = await this.#meter.sample().catch(() => NOTHING_USED); // ended between two samples
    this.#used = {
      cpuMs: Math.max(this.#used.cpuMs, sample.cpuMs),
      peakMemoryBytes: Math.max(this.#used.peakMemoryBytes, sample.peakMemoryBytes),
    };
    this.#onSample(this.#used);
  }
}
