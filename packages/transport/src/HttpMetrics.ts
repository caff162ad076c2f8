/**
 * The metrics of OpenTelemetry's semantic conventions for HTTP, beside those of `TransportMetrics`: for dashboards that know
 * the conventions and nothing of this library. They are made from the audit events, by a sink around the audit log.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import type { AuditEvent, RequestEnded } from "./AuditEvent.js"
import { AuditLog } from "./AuditLog.js"
import { hostOf } from "./internal/http/url.js"
import { BoundedLabels } from "./internal/metrics/boundedLabels.js"
import { methodOf } from "./internal/requestTelemetry.js"

/** The buckets that the conventions advise, in seconds. */
const seconds = MetricBoundaries.fromIterable([
  0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10
])

/**
 * Duration of requests that this process made, in seconds, by `http.request.method` (`_OTHER` for one that HTTP does not
 * define), `http.response.status_code`, `error.type` (the tag of the error, or a status from 400 on), `server.address` and
 * `server.port`. A label without a value is left out.
 *
 * @since 0.1.0
 * @category metrics
 */
export const clientRequestDuration = Metric.histogram(
  "http.client.request.duration",
  seconds,
  "Duration of HTTP client requests."
)

/**
 * Duration of requests that this process answered, in seconds, by `http.request.method`, `http.response.status_code`,
 * `error.type` (the tag of the error, or a status from 500 on) and `url.scheme`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const serverRequestDuration = Metric.histogram(
  "http.server.request.duration",
  seconds,
  "Duration of HTTP server requests."
)

const common = ["http.request.method", "http.response.status_code", "error.type"]
const byClient = new BoundedLabels(clientRequestDuration, [...common, "server.address", "server.port"], {
  omitsEmpty: true
})
const byServer = new BoundedLabels(serverRequestDuration, [...common, "url.scheme"], { omitsEmpty: true })

const observe = ({ address, durationMillis, error, method, side, status }: typeof RequestEnded.Type): void => {
  const firstError = side === "Client" ? 400 : 500
  const type = error ?? (status !== undefined && status >= firstError ? String(status) : "")
  const code = status === undefined ? "" : String(status)
  if (side === "Server") {
    byServer.update(durationMillis / 1000, methodOf(method), code, type, "https")
    return
  }
  const colon = address.lastIndexOf(":")
  const host = hostOf(address.slice(0, colon))
  byClient.update(durationMillis / 1000, methodOf(method), code, type, host, address.slice(colon + 1))
}

const observeEvent = (event: AuditEvent): void => {
  if (event._tag === "RequestEnded") observe(event)
}

/**
 * The audit log that is given, and beside it the metrics of its requests. Without this layer they cost nothing.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { AuditLog, HttpMetrics } from "@agentweave/transport"
 *
 * const Audit = HttpMetrics.layerAuditLog(AuditLog.layerLogger)
 * ```
 */
export const layerAuditLog = <E, R>(auditLog: Layer.Layer<AuditLog, E, R>): Layer.Layer<AuditLog, E, R> =>
  Layer.map(auditLog, (context) => {
    const { unsafeRecord } = Context.get(context, AuditLog)
    return Context.make(AuditLog, {
      unsafeRecord: (event) => {
        const refusal = unsafeRecord(event)
        observeEvent(event)
        return refusal
      }
    })
  })
