/**
 * How long the body of one request's response may be silent.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"

/**
 * The limit of the requests of an effect, in place of `TransportConfig.bodyTimeout`. `undefined`, the default, leaves that
 * in force.
 *
 * @since 0.1.0
 * @category tags
 */
export class BodyTimeout extends Context.Reference<BodyTimeout>()("@agentweave/transport/BodyTimeout", {
  defaultValue: (): Duration.Duration | undefined => undefined
}) {}

/**
 * Sets the longest silence in the bodies of responses to the requests that the effect sends. `Duration.infinity` waits
 * without end: for a stream of events, which may be silent for hours.
 *
 * It goes around the effect that sends the request; the body may be read anywhere.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { BodyTimeout, type SecureChannel } from "@agentweave/transport"
 * import { HttpClientResponse } from "@effect/platform"
 * import { Duration } from "effect"
 *
 * const events = (channel: SecureChannel.SecureChannel) =>
 *   channel.get("/events").pipe(BodyTimeout.withBodyTimeout(Duration.infinity), HttpClientResponse.stream)
 * ```
 */
export const withBodyTimeout: {
  (duration: Duration.DurationInput): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, duration: Duration.DurationInput): Effect.Effect<A, E, R>
} = dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, duration: Duration.DurationInput) =>
  Effect.provideService(self, BodyTimeout, Duration.decode(duration))
)
