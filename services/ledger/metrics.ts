import type { BatchObservableResult, Meter } from "@opentelemetry/api";
import { figuresAt } from "./account.ts";
import type { Command, Decision } from "./decider.ts";
import { partsOf } from "./rules.ts";
import { type LedgerState, limitOf } from "./state.ts";

/**
 * The ledger's figures for Prometheus and OpenTelemetry. Budgets of each session by itself are left out: their number
 * has no bound, and a time series that ends within minutes helps nobody. `interlock budgets` lists them.
 */
export type LedgerMetrics = {
  readonly record: (tenant: string, command: Command, decided: Decision, ms: number) => void;
  /** `tenants` shows every tenant's state to whoever looks; asked once for each collection. */
  readonly observe: (
    tenants: (look: (tenant: string, state: LedgerState) => void) => Promise<void>,
    now: () => number,
  ) => void;
};

/** Of one collection, so that a tenant with very many agents does not drown the others. */
const MAX_SERIES = 5_000;

export function ledgerMetrics(meter: Meter): LedgerMetrics {
  const commands = meter.createCounter("interlock_ledger_commands", {
    description: "Commands to the ledger by kind and outcome: accepted, or the kind of its refusal.",
  });
  const duration = meter.createHistogram("interlock_ledger_command_duration", {
    description: "From a command's arrival until it is durable or refused.",
    unit: "ms",
    advice: { explicitBucketBoundaries: [0.5, 1, 2, 5, 10, 25, 50, 100, 250, 1000, 5000] },
  });
  const signals = meter.createCounter("interlock_budget_signals", {
    description: "Thresholds, overruns, forecasts and anomalies that were signalled.",
  });
  return {
    record: (tenant, command, decided, ms) => {
      const outcome = decided.kind === "accepted" ? "accepted" : decided.refusal.kind;
      commands.add(1, { tenant, command: command.kind, outcome });
      duration.record(ms, { command: command.kind });
      if (decided.kind === "refused") return;
      for (const event of decided.events) {
        if (event.kind !== "committed") continue;
        for (const { kind, account } of event.signals) signals.add(1, { tenant, kind, budget: partsOf(account).name });
      }
    },
    observe: (tenants, now) => observeBudgets(meter, tenants, now),
  };
}

function observeBudgets(meter: Meter, ...[tenants, now]: Parameters<LedgerMetrics["observe"]>): void {
  const gauge = (name: string, description: string) =>
    meter.createObservableGauge(`interlock_budget_${name}`, { description });
  const of = {
    limit: gauge("limit", "What may be spent in the window, without grants."),
    granted: gauge("granted", "Extra that operators gave, once."),
    held: gauge("held", "Held for calls that have not ended."),
    spent: gauge("spent", "Spent in the window."),
    available: gauge("available", "Limit and grants without what is held and spent; negative after an overrun."),
  };
  meter.addBatchObservableCallback(async (result: BatchObservableResult) => {
    let series = 0;
    await tenants((tenant, state) => {
      for (const account of state.accounts.values()) {
        const { name, unit, scope, subject } = partsOf(account.key);
        const limit = limitOf(state, account.key, account.ruleId);
        if (limit === undefined || scope.includes("session") || series++ >= MAX_SERIES) continue;
        const { held, spent, granted } = figuresAt(account, now());
        const labels = { tenant, budget: name, unit, subject };
        result.observe(of.limit, Number(limit), labels);
        result.observe(of.granted, Number(granted), labels);
        result.observe(of.held, Number(held), labels);
        result.observe(of.spent, Number(spent), labels);
        result.observe(of.available, Number(limit + granted - held - spent), labels);
      }
    });
  }, Object.values(of));
}
