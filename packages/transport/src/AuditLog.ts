/**
 * Where audit events go. There is no sink that drops everything.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as HashMap from "effect/HashMap"
import * as Layer from "effect/Layer"
import * as List from "effect/List"
import type * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type AuditEvent, isRequest } from "./AuditEvent.js"
import { unsafeObserve } from "./TransportMetrics.js"

/**
 * An event could not be recorded, so what it would have recorded does not happen.
 *
 * @since 0.1.0
 * @category errors
 */
export class AuditError extends Schema.TaggedError<AuditError>()("AuditError", {
  reason: Schema.Literal("Full", "Failed", "Closed"),
  description: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  /** A retry would meet the same sink. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.reason}: ${this.description}`
  }
}

/**
 * The audit sink.
 *
 * @since 0.1.0
 * @category tags
 */
export class AuditLog extends Context.Tag("@agentweave/transport/AuditLog")<
  AuditLog,
  {
    /**
     * Takes one event, synchronously: it is called from socket callbacks and on the request path. `undefined` when the
     * event was taken; an error when it was not, and then the caller refuses the connection or request it stood for.
     */
    readonly unsafeRecord: (event: AuditEvent) => AuditError | undefined
  }
>() {}

/**
 * Called by everything that leaves a trace: counts the event in `TransportMetrics` and hands it to the sink.
 *
 * @since 0.1.0
 * @category getters
 */
export const recorder: Effect.Effect<(event: AuditEvent) => AuditError | undefined, never, AuditLog> = Effect.map(
  AuditLog,
  (log) => (event) => {
    const error = log.unsafeRecord(event)
    // A connection that cannot be recorded does not come to be, and its refusal is counted instead.
    if (error === undefined || event._tag !== "ConnectionEstablished") unsafeObserve(event)
    return error
  }
)

/**
 * {@link recorder} where an audit log is optional: without one in the context events are counted and no more.
 *
 * @since 0.1.0
 * @category getters
 */
export const optionalRecorder: Effect.Effect<(event: AuditEvent) => AuditError | undefined> = Effect.map(
  Effect.serviceOption(AuditLog),
  (log) => (event) => {
    unsafeObserve(event)
    return log._tag === "Some" ? log.value.unsafeRecord(event) : undefined
  }
)

/**
 * Records an event from an Effect.
 *
 * @since 0.1.0
 * @category operations
 */
export const record = (event: AuditEvent): Effect.Effect<void, AuditError, AuditLog> =>
  Effect.flatMap(recorder, (unsafeRecord) => unsafeRecord(event) ?? Effect.void)

const warnings: ReadonlySet<AuditEvent["_tag"]> = new Set([
  "ConnectionRefused",
  "ConnectionsRefused",
  "IdentityProblem",
  "PoolExhausted",
  "LeaseLeaked"
])

const level = (event: AuditEvent): LogLevel.LogLevel =>
  isRequest(event) ? LogLevel.Debug : warnings.has(event._tag) ? LogLevel.Warning : LogLevel.Info

/**
 * Events as structured log entries of Effect's logger: the message is the event's tag, its fields are annotations.
 * Refusals and problems are warnings, requests are debug entries, the rest is informational. It never fails.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { AuditLog } from "@agentweave/transport"
 * import { NodeConnector } from "@agentweave/transport-node"
 * import { Layer, Logger } from "effect"
 *
 * const ConnectorLive = NodeConnector.layer.pipe(Layer.provide(AuditLog.layerLogger), Layer.provide(Logger.json))
 * ```
 */
export const layerLogger: Layer.Layer<AuditLog> = Layer.effect(
  AuditLog,
  Effect.map(Effect.runtime<never>(), (runtime) => {
    const runFork = Runtime.runFork(runtime)
    const minimum = FiberRefs.getOrDefault(runtime.fiberRefs, FiberRef.currentMinimumLogLevel)
    return {
      unsafeRecord: (event) => {
        const eventLevel = level(event)
        if (LogLevel.greaterThan(minimum, eventLevel)) return undefined
        const { _tag, ...fields } = event
        runFork(Effect.annotateLogs(Effect.logWithLevel(eventLevel, _tag), fields))
        return undefined
      }
    }
  })
)

/**
 * Events as log entries of a logger of their own, whatever loggers the program has: the message is the event's tag, its
 * fields are annotations, its time is the entry's, and its level is that of {@link layerLogger}. With the logger of
 * `@effect/opentelemetry` they reach an OpenTelemetry collector by OTLP. It never fails: what the logger does with an entry,
 * and whether it drops some, is the logger's. Where events must not be lost, `layerTee` puts a file beside it.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { AuditLog } from "@agentweave/transport"
 * import * as OtlpLogger from "@effect/opentelemetry/OtlpLogger"
 * import * as OtlpSerialization from "@effect/opentelemetry/OtlpSerialization"
 * import { FetchHttpClient } from "@effect/platform"
 * import { Layer } from "effect"
 *
 * const Audit = AuditLog.layerFromLogger(
 *   OtlpLogger.make({ url: "http://localhost:4318/v1/logs", resource: { serviceName: "web" } })
 * ).pipe(Layer.provide([FetchHttpClient.layer, OtlpSerialization.layerJson]))
 * ```
 */
export const layerFromLogger = <E, R>(
  logger: Effect.Effect<Logger.Logger<unknown, unknown>, E, R>
): Layer.Layer<AuditLog, E, Exclude<R, Scope.Scope>> =>
  Layer.scoped(
    AuditLog,
    Effect.map(logger, (logger) => ({
      unsafeRecord: (event) => {
        const { _tag, ...fields } = event
        logger.log({
          fiberId: FiberId.none,
          logLevel: level(event),
          message: _tag,
          cause: Cause.empty,
          context: FiberRefs.empty(),
          spans: List.empty(),
          annotations: HashMap.fromIterable<string, unknown>(Object.entries(fields)),
          date: new Date(event.time)
        })
        return undefined
      }
    }))
  )

/**
 * Events kept in memory, in order: for tests. The array is the live record.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { type AuditEvent, AuditLog } from "@agentweave/transport"
 *
 * const events: Array<AuditEvent.AuditEvent> = []
 * const Audit = AuditLog.layerMemory(events)
 * // ... run what is tested with Audit, then:
 * const refusals = events.filter((event) => event._tag === "ConnectionRefused")
 * ```
 */
export const layerMemory = (events: Array<AuditEvent>): Layer.Layer<AuditLog> =>
  Layer.succeed(AuditLog, {
    unsafeRecord: (event) => {
      events.push(event)
      return undefined
    }
  })

/**
 * Every event to both sinks. An event is taken when both have taken it; the first one's error comes first.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { AuditLog } from "@agentweave/transport"
 * import { NodeAuditLog } from "@agentweave/transport-node"
 *
 * const Audit = AuditLog.layerTee(NodeAuditLog.layerFile({ path: "/var/log/web/audit.ndjson" }), AuditLog.layerLogger)
 * ```
 */
export const layerTee = <E1, R1, E2, R2>(
  left: Layer.Layer<AuditLog, E1, R1>,
  right: Layer.Layer<AuditLog, E2, R2>
): Layer.Layer<AuditLog, E1 | E2, R1 | R2> =>
  Layer.scoped(
    AuditLog,
    Effect.gen(function* () {
      const first = Context.get(yield* Layer.build(Layer.fresh(left)), AuditLog)
      const second = Context.get(yield* Layer.build(Layer.fresh(right)), AuditLog)
      return {
        unsafeRecord: (event) => {
          const error = first.unsafeRecord(event)
          const other = second.unsafeRecord(event)
          return error ?? other
        }
      }
    })
  )
