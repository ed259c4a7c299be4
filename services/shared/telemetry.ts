import type { Meter } from "@opentelemetry/api";
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-proto";
import { PrometheusExporter } from "@opentelemetry/exporter-prometheus";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { MeterProvider, type MetricReader, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";

/** The process's figures, for whoever collects them: Prometheus asks, an OpenTelemetry collector is sent. */

export type TelemetryOptions = {
  /** host:port where `/metrics` is served. */
  readonly prometheus?: string | undefined;
  /** URL of a collector's OTLP/HTTP endpoint, as http://127.0.0.1:4318/v1/metrics. */
  readonly otlp?: string | undefined;
  readonly otlpEveryMs: number;
};

export type Telemetry = AsyncDisposable & { readonly meter: Meter };

/** @throws Error naming the port when Prometheus cannot be served there. */
export async function startTelemetry({ prometheus, otlp, otlpEveryMs }: TelemetryOptions): Promise<Telemetry> {
  const readers: MetricReader[] = [];
  if (prometheus !== undefined) readers.push(await servePrometheus(prometheus));
  if (otlp !== undefined) {
    const exporter = new OTLPMetricExporter({ url: otlp });
    readers.push(new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: otlpEveryMs }));
  }
  const provider = new MeterProvider({ readers, resource: resourceFromAttributes({ "service.name": "interlock" }) });
  let stopped: Promise<void> | undefined;
  return {
    meter: provider.getMeter("interlock"),
    [Symbol.asyncDispose]: () => {
      // What cannot be sent any more is lost: a collector that is away must not keep the process.
      stopped ??= provider.shutdown().catch(() => {});
      return stopped;
    },
  };
}

async function servePrometheus(listen: string): Promise<PrometheusExporter> {
  const at = listen.lastIndexOf(":");
  const options = { host: listen.slice(0, at), port: Number(listen.slice(at + 1)), preventServerStart: true };
  const exporter = new PrometheusExporter(options);
  try {
    await exporter.startServer();
    return exporter;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`metrics cannot be served on ${listen} (${why}): free the port, or change telemetry.prometheus.`, {
      cause: error,
    });
  }
}
