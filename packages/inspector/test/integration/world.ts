/** A process with an identity, an audit log and an inspector, for the tests in this folder. */
import { Activity, Inspector, Snapshot } from "@agentweave/inspector"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, CircuitBreakerRegistry } from "@agentweave/transport"
import { Effect, Layer, Option, Schema, TestClock } from "effect"

export const host = "127.0.0.1"

/** Certificates are judged by their dates, so the test's clock begins with the real time. It moves when a test moves it. */
export const realTime: Effect.Effect<void> = Effect.suspend(() => TestClock.setTime(Date.now()))

/** The identity of the process, its audit log and breakers. */
export const processOf = (identity: Layer.Layer<IdentityProvider.IdentityProvider>) =>
  CircuitBreakerRegistry.layer({ failureThreshold: 1 }).pipe(
    Layer.provideMerge(Activity.layerAuditLog(AuditLog.layerMemory([]))),
    Layer.merge(identity)
  )

export const start = (options: Inspector.LoopbackOptions = {}) =>
  Effect.gen(function* () {
    yield* realTime
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const context = yield* authority.context({ path: "/web" })
    const process = processOf(IdentityProvider.layerStatic(context))
    const services = yield* Layer.build(Layer.provideMerge(Inspector.layer({ port: 0, ...options }), process))
    const inspector = yield* Effect.provide(Inspector.Inspector, services)
    const url = new URL(Option.getOrElse(inspector.url, () => ""))
    return { port: Number(url.port), url, inspector, context, services }
  })

export const decode = Schema.decode(Snapshot.FromJson)
