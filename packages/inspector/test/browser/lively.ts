/** An inspector of a process with some life behind it, for a browser to look at. */
import { Activity, Inspector } from "@agentweave/inspector"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { CircuitBreakerRegistry } from "@agentweave/transport"
import { Clock, Effect, Layer, Logger, LogLevel, Option } from "effect"
import { api, billing, ended, established, refused, started } from "../events.js"
import { processOf } from "../integration/world.js"

/** A text of an attacker's. */
export const markup = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

/** A process with some life behind it, an attacker's texts among it. */
const lively = Effect.gen(function* () {
  const { unsafeRecord } = yield* Activity.Activity
  const now = yield* Clock.currentTimeMillis
  for (const [n, peerId] of [api, billing].entries()) {
    const one = { connectionId: `c${n}`, peerId, side: n === 0 ? "Client" : "Server" } as const
    unsafeRecord(established({ ...one, time: now - 200_000 }))
    for (let past = 200; past > 0; past--) {
      const request = { ...one, requestId: `r${n}-${past}`, time: now - past * 1_000 }
      unsafeRecord(started(request))
      unsafeRecord(ended({ ...request, durationMillis: 5 + ((past * 7) % 60), status: past % 23 === 0 ? 503 : 200 }))
    }
  }
  unsafeRecord(ended({ time: now, path: `/${markup}`, error: "TimeoutError" }))
  unsafeRecord(refused({ time: now - 5_000, description: `expected a bundle, got ${markup}`, actualId: markup }))
  unsafeRecord(refused({ time: now - 2_000, reason: "UnexpectedPeer", side: "Server" }))
  const breaker = yield* Effect.flatMap(CircuitBreakerRegistry.CircuitBreakerRegistry, ({ get }) => get(billing))
  yield* Effect.ignore(breaker.protect(Effect.fail("down")))
})

export const inspected = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const process = processOf(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
  const services = yield* Layer.build(
    Layer.provideMerge(Inspector.layer({ port: 0, reset: true, interval: "100 millis" }), process)
  )
  yield* Effect.provide(lively, services)
  const { snapshot, url } = yield* Effect.provide(Inspector.Inspector, services)
  const { unsafeRecord } = yield* Effect.provide(Activity.Activity, services)
  return { url: Option.getOrElse(url, () => ""), snapshot, unsafeRecord }
}).pipe(Logger.withMinimumLogLevel(LogLevel.None))
