import type { Meter } from "@opentelemetry/api";
import type { PoolState } from "./pool.ts";

/** The containers' figures for Prometheus and OpenTelemetry. */
export function observeContainers(meter: Meter, stateNow: () => PoolState & { readonly sessions: number }): void {
  const gauge = (name: string, description: string) =>
    meter.createObservableGauge(`interlock_containers_${name}`, { description });
  const counter = (name: string, description: string) =>
    meter.createObservableCounter(`interlock_containers_${name}`, { description });
  const of = {
    idle: gauge("idle", "Started and never used: ready to be claimed."),
    making: gauge("making", "Being made to be ready."),
    sessions: gauge("sessions", "Kept for agents' sessions."),
    claimed: counter("claimed", "Calls and sessions that found one ready."),
    missed: counter("missed", "Calls and sessions that had to wait for their own."),
  };
  meter.addBatchObservableCallback((result) => {
    const state = stateNow();
    for (const name of ["idle", "making", "sessions", "claimed", "missed"] as const)
      result.observe(of[name], state[name]);
  }, Object.values(of));
}
