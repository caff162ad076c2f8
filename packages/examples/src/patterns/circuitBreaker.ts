/** A service that is down is not called, and answered for at once. */
import { CircuitBreaker } from "@agentweave/transport"
import { Context, Effect } from "effect"

export class Service extends Context.Tag("examples/Service")<Service, CircuitBreaker.CircuitBreaker>() {}
export const ServiceLive = CircuitBreaker.layer(Service, { target: "service", failureThreshold: 5 })

export const circuitBreaker = <A, E, R>(service: Effect.Effect<A, E, R>, fallback: A) =>
  Effect.flatMap(Service, (circuit) => circuit.protect(service)).pipe(
    Effect.catchTag("CircuitOpenError", () => Effect.succeed(fallback))
  )
