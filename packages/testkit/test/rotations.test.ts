import { SpiffeId, X509Context } from "@agentweave/spiffe"
import { DevAuthority, TestConnector, TestIdentity } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, IdentityMonitor, PeerDirectory, Transport } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Clock, Context, Effect, Layer, Logger, TestClock } from "effect"
import { quicken } from "../../spiffe/test/support/quickTestClock.js"

const hour = 3_600_000

/** A month, unless another length is asked for: a year takes twelve times as long. */
const days = Number(process.env["ROTATION_DAYS"] ?? 30)
const hours = days * 24

const peer = "spiffe://example.org/billing"

/** A log that counts, and keeps what is not to happen. */
const counting = () => {
  const counts = new Map<AuditEvent.AuditEvent["_tag"], number>()
  const faults: Array<AuditEvent.AuditEvent> = []
  const unsafeRecord = (event: AuditEvent.AuditEvent) => {
    counts.set(event._tag, (counts.get(event._tag) ?? 0) + 1)
    if (event._tag === "IdentityProblem" || event._tag === "ConnectionRefused") faults.push(event)
    return undefined
  }
  return { counts, faults, layer: Layer.succeed(AuditLog.AuditLog, { unsafeRecord }) }
}

it.scoped(`${days} days of hourly rotations of the whole transport: a request each hour, and none of them fails`, () =>
  Effect.gen(function* () {
    yield* quicken
    const authority = yield* DevAuthority.make({ trustDomain: "example.org", rootTtl: "800 days" })
    const { bundles, svid } = yield* authority.context({ path: "/api", ttl: "400 days" })
    /** The next SVID: nothing but its dates and its name, since minting so many is not what is tested. */
    const issue = Effect.map(Clock.currentTimeMillis, (now) => {
      const dates = { notBefore: now - 60_000, notAfter: now + 100 * 60_000 }
      return X509Context.make({ svid: { ...svid, ...dates, fingerprint: `${now}` }, bundles })
    })
    const identity = yield* TestIdentity.make(yield* issue)
    const audit = counting()
    const network = yield* TestConnector.make({
      handler: ({ caller }) => Effect.succeed(HttpServerResponse.text(caller.spiffeId)),
      onConnect: () =>
        Effect.map(Clock.currentTimeMillis, (now) => ({ spiffeId: SpiffeId.make(peer), notAfter: now + 90 * 60_000 }))
    })
    const services = yield* Layer.build(
      Layer.merge(
        Transport.layer({
          pool: { cleanupInterval: "1 hour", healthCheckInterval: "1 hour" },
          breaker: { cleanupInterval: "1 hour" }
        }).pipe(
          Layer.provide(PeerDirectory.layerStatic({ [peer]: "https://billing.internal" })),
          Layer.provide(network.layer)
        ),
        IdentityMonitor.layer({ interval: "1 hour" })
      ).pipe(
        Layer.provide(identity.layer),
        Layer.provide(audit.layer),
        Layer.provide(Logger.remove(Logger.defaultLogger))
      )
    )
    const monitor = Context.get(services, IdentityMonitor.IdentityMonitor)
    const billing = yield* Context.get(services, Transport.Transport).client(peer)
    const wrong: Array<string> = []
    for (let at = 0; at < hours; at++) {
      const response = yield* billing.get("/")
      const answer = `${response.status} ${yield* response.text} ${yield* monitor.freshness}`
      if (answer !== "200 spiffe://example.org/api Fresh") wrong.push(`hour ${at}: ${answer}`)
      yield* TestClock.adjust(hour)
      yield* identity.rotate(issue)
    }
    expect(wrong).toEqual([])
    expect(audit.faults).toEqual([])
    yield* TestClock.adjust(0)
    expect(audit.counts.get("RequestEnded")).toBe(hours)
    expect(audit.counts.get("SvidRotated")).toBe(hours + 1)
  })
)
