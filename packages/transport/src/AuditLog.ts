/**
 * Where audit events go. There is no sink that drops everything.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as LogLevel from "effect/LogLevel"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import type { AuditEvent } from "./AuditEvent.js"

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
 * Records an event from an Effect.
 *
 * @since 0.1.0
 * @category combinators
 */
export const record = (event: AuditEvent): Effect.Effect<void, AuditError, AuditLog> =>
  Effect.flatMap(AuditLog, (log) => {
    const error = log.unsafeRecord(event)
    return error === undefined ? Effect.void : Effect.fail(error)
  })

const level = (event: AuditEvent): LogLevel.LogLevel =>
  event._tag === "ConnectionRefused" ? LogLevel.Warning : LogLevel.Info

/**
 * Events as structured log entries of Effect's logger: the message is the event's tag, its fields are annotations.
 * Refusals are warnings, the rest informational. It also serves where a sink is needed and nothing else is configured.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerLogger: Layer.Layer<AuditLog> = Layer.effect(
  AuditLog,
  Effect.map(Effect.runtime<never>(), (runtime) => {
    const runFork = Runtime.runFork(runtime)
    return {
      unsafeRecord: (event: AuditEvent) => {
        const { _tag, ...fields } = event
        runFork(Effect.annotateLogs(Effect.logWithLevel(level(event), _tag), fields))
        return undefined
      }
    }
  })
)

/**
 * Events kept in memory, in order: for tests. The array is the live record.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory = (events: Array<AuditEvent>): Layer.Layer<AuditLog> =>
  Layer.succeed(AuditLog, {
    unsafeRecord: (event) => {
      events.push(event)
      return undefined
    }
  })
