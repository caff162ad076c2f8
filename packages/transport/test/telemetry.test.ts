import { IdentityError, IdentityProvider, type X509Context } from "@agentweave/spiffe"
import { DevAuthority, TestIdentity } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, IdentityMonitor, TransportMetrics } from "@agentweave/transport"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Metric, MetricLabel, TestClock } from "effect"
import { quicken } from "../../spiffe/test/support/quickTestClock.js"
import { BoundedLabels } from "../src/internal/metrics/boundedLabels.js"

const count = (metric: Metric.Metric.Counter<number>, labels: Record<string, string>) =>
  Effect.map(
    Metric.value(
      Metric.taggedWithLabels(
        metric,
        Object.entries(labels).map(([key, value]) => MetricLabel.make(key, value))
      )
    ),
    (state) => state.count
  )

const ended = (fields: Partial<Extract<AuditEvent.AuditEvent, { readonly _tag: "RequestEnded" }>>) =>
  ({
    _tag: "RequestEnded",
    time: 0,
    side: "Client",
    connectionId: "c1",
    address: "127.0.0.1:1",
    requestId: "r1",
    peerId: "spiffe://metrics.test/api",
    method: "GET",
    path: "/",
    attempt: 1,
    durationMillis: 5,
    ...fields
  }) satisfies AuditEvent.AuditEvent

it.effect("what is put on record is counted, by outcome and peer", () =>
  Effect.gen(function* () {
    const record = yield* AuditLog.recorder
    record(ended({ status: 200 }))
    record(ended({ status: 204 }))
    record(ended({ status: 503 }))
    record(ended({ error: "TimeoutError" }))
    const by = (outcome: string) =>
      count(TransportMetrics.requests, { side: "Client", peer: "spiffe://metrics.test/api", outcome })
    expect(yield* Effect.all([by("2xx"), by("5xx"), by("TimeoutError")])).toEqual([2, 1, 1])
  }).pipe(Effect.provide(AuditLog.layerMemory([])))
)

it.effect("labels are bounded: from a thousand on they are counted as other, or not at all", () =>
  Effect.gen(function* () {
    const counter = Metric.counter("labels_test_total", { incremental: true })
    const gauge = Metric.gauge("labels_test")
    const counted = new BoundedLabels(counter, ["peer", "to"])
    const shown = new BoundedLabels(gauge, ["peer"], { beyond: "nothing" })
    for (let n = 0; n < 1_500; n++) {
      counted.update(1, `spiffe://many.test/${n}`, "Open")
      shown.update(1, `spiffe://many.test/${n}`)
    }
    expect(yield* count(counter, { peer: "spiffe://many.test/999", to: "Open" })).toBe(1)
    expect(yield* count(counter, { peer: "other", to: "other" })).toBe(500)
    const peers = Array.from(yield* Metric.snapshot, ({ metricKey }) => metricKey).filter(
      ({ name }) => name === "labels_test"
    )
    expect(peers).toHaveLength(1_000)
    expect([shown.knows("spiffe://many.test/999"), shown.knows("spiffe://many.test/1000")]).toEqual([true, false])
  })
)

const tags = (events: ReadonlyArray<AuditEvent.AuditEvent>) =>
  events.map((event) => (event._tag === "IdentityProblem" ? `${event._tag} ${event.problem}` : event._tag))

const monitored = <A, E>(
  initial: X509Context.X509Context,
  use: (options: {
    readonly identity: TestIdentity.TestIdentity
    readonly monitor: IdentityMonitor.IdentityMonitor["Type"]
    readonly events: ReadonlyArray<AuditEvent.AuditEvent>
  }) => Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    const events: Array<AuditEvent.AuditEvent> = []
    const identity = yield* TestIdentity.make(initial)
    const built = yield* Layer.build(
      IdentityMonitor.layer().pipe(
        Layer.provide(Layer.succeed(IdentityProvider.IdentityProvider, identity.provider)),
        Layer.provide(AuditLog.layerMemory(events))
      )
    )
    yield* TestClock.adjust(0)
    return yield* use({ identity, monitor: Context.get(built, IdentityMonitor.IdentityMonitor), events })
  })

it.scoped("rotations of SVID and bundles are on record, each for what changed", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const partner = yield* DevAuthority.make({ trustDomain: "partner.test" })
    yield* monitored(yield* authority.context({ path: "/web" }), ({ events, identity }) =>
      Effect.gen(function* () {
        expect(tags(events)).toEqual(["SvidRotated", "BundleRotated"])
        yield* identity.set(yield* authority.context({ path: "/web", federatesWith: [partner] }))
        yield* TestClock.adjust(0)
        expect(tags(events).slice(2)).toEqual(["SvidRotated", "BundleRotated"])
        expect(events.at(-1)).toMatchObject({ trustDomain: "partner.test", authorities: 1 })
        yield* identity.set(yield* authority.context({ path: "/web" }))
        yield* TestClock.adjust(0)
        expect(events.at(-1)).toEqual({ _tag: "BundleRotated", time: 0, trustDomain: "partner.test", authorities: 0 })
      })
    )
  })
)

it.scoped("an identity goes from fresh to stale to expired, and each step is on record once", () =>
  Effect.gen(function* () {
    yield* quicken
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    yield* monitored(yield* authority.context({ path: "/web", ttl: "1 hour" }), ({ events, monitor }) =>
      Effect.gen(function* () {
        expect(yield* monitor.freshness).toBe("Fresh")
        yield* TestClock.adjust("45 minutes")
        expect(yield* monitor.freshness).toBe("Stale")
        yield* TestClock.adjust("20 minutes")
        expect(yield* monitor.freshness).toBe("Expired")
        expect(tags(events).slice(2)).toEqual(["IdentityProblem Stale", "IdentityProblem Expired"])
        const expiry = yield* Metric.value(TransportMetrics.secondsToExpiry)
        expect(expiry.value).toBeLessThan(0)
      })
    )
  })
)

it.scoped("a withdrawn identity is on record, and so is its return", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    yield* monitored(yield* authority.context({ path: "/web" }), ({ events, identity, monitor }) =>
      Effect.gen(function* () {
        yield* identity.fail(
          new IdentityError.IdentityError({ reason: "Withdrawn", description: "no identity issued" })
        )
        yield* TestClock.adjust("3 seconds")
        expect(yield* monitor.freshness).toBe("None")
        expect(tags(events).slice(2)).toEqual(["IdentityProblem Withdrawn"])
        yield* identity.set(yield* authority.context({ path: "/web" }))
        yield* TestClock.adjust("1 second")
        expect(yield* monitor.freshness).toBe("Fresh")
        expect(tags(events).at(-1)).toBe("BundleRotated")
      })
    )
  })
)
