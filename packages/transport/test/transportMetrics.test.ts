/** Metrics that tell of a state: budgets, breakers, rotations. All of them in the text that Prometheus reads. */
import {
  type AuditEvent,
  AuditLog,
  CircuitBreakerRegistry,
  PrometheusMetrics,
  RetryBudget,
  TransportMetrics
} from "@agentweave/transport"
import { expect, it } from "@effect/vitest"
import { Effect, Metric, MetricLabel, TestClock } from "effect"

const labels = (of: Record<string, string>) => Object.entries(of).map(([key, value]) => MetricLabel.make(key, value))

/** The lines of the text that are about a peer, or a metric. */
const lines = (part: string) =>
  Effect.map(PrometheusMetrics.text, (text) => text.split("\n").filter((line) => line.includes(part)))

it.effect("a retry budget shows what it has left, with time and requests, and counts what it refuses", () =>
  Effect.gen(function* () {
    const target = "spiffe://metrics.test/budget"
    const budget = yield* RetryBudget.make({ ratio: 0.5, minRetriesPerSecond: 0.2, ttl: "10 seconds", target })
    expect(yield* lines(target)).toEqual([`transport_retry_budget_available_retries{peer="${target}"} 2`])
    yield* budget.withdraw
    expect(yield* lines(target)).toEqual([`transport_retry_budget_available_retries{peer="${target}"} 1`])
    yield* budget.withdraw
    yield* budget.withdraw
    const exhausted = `transport_retry_budget_exhausted_total{peer="${target}"} 1`
    expect(yield* lines(target)).toContain(`transport_retry_budget_available_retries{peer="${target}"} 0`)
    expect(yield* lines(target)).toContain(exhausted)
    for (let n = 0; n < 6; n++) yield* budget.deposit
    expect(yield* lines(target)).toContain(`transport_retry_budget_available_retries{peer="${target}"} 3`)
    yield* TestClock.adjust("20 seconds")
    expect(yield* lines(target)).toContain(`transport_retry_budget_available_retries{peer="${target}"} 2`)
    expect(yield* lines(target)).toContain(exhausted)
  })
)

it.effect("a budget without a target counts its refusals and has no gauge", () =>
  Effect.gen(function* () {
    const refused = Effect.map(
      Metric.value(Metric.taggedWithLabels(TransportMetrics.retryBudgetExhausted, labels({ peer: "" }))),
      ({ count }) => count
    )
    const before = yield* refused
    const budget = yield* RetryBudget.make({ minRetriesPerSecond: 0 })
    yield* budget.withdraw
    expect((yield* refused) - before).toBe(1)
    expect(yield* lines('transport_retry_budget_available_retries{peer=""}')).toEqual([])
  })
)

it.scoped("a breaker's state is one of three, from its first transition on; one made anew is closed", () =>
  Effect.gen(function* () {
    const target = "spiffe://metrics.test/breaker"
    const state = (name: string, value: number) => `transport_circuit_state{peer="${target}",state="${name}"} ${value}`
    const registry = yield* CircuitBreakerRegistry.make({ failureThreshold: 1, timeout: "1 minute" })
    const breaker = yield* registry.get(target)
    yield* breaker.protect(Effect.void)
    expect(yield* lines(`circuit_state{peer="${target}"`)).toEqual([])
    yield* Effect.flip(breaker.protect(Effect.fail("down")))
    expect(yield* lines(`circuit_state{peer="${target}"`)).toEqual([
      state("Closed", 0),
      state("Open", 1),
      state("HalfOpen", 0)
    ])
    yield* TestClock.adjust("2 minutes")
    expect(yield* breaker.state).toBe("HalfOpen")
    expect(yield* lines(`circuit_state{peer="${target}"`)).toContain(state("HalfOpen", 1))
    const another = yield* CircuitBreakerRegistry.make()
    yield* another.get(target)
    expect(yield* lines(`circuit_state{peer="${target}"`)).toEqual([
      state("Closed", 1),
      state("Open", 0),
      state("HalfOpen", 0)
    ])
  })
)

const rotated = (ownId: string, fingerprint: string, time: number): AuditEvent.AuditEvent => ({
  _tag: "SvidRotated",
  time,
  ownId,
  serialNumber: "1",
  fingerprint,
  notAfter: 0
})

const established = (
  side: "Client" | "Server",
  ownId: string,
  ownFingerprint: string,
  time: number
): AuditEvent.AuditEvent => ({
  _tag: "ConnectionEstablished",
  time,
  side,
  connectionId: "c1",
  address: "127.0.0.1:1",
  peerId: "spiffe://metrics.test/api",
  peerSerialNumber: "1",
  peerFingerprint: "f",
  ownId,
  ownSerialNumber: "1",
  ownFingerprint,
  bundleGeneration: "g",
  tlsVersion: "TLSv1.3",
  cipher: "TLS_AES_128_GCM_SHA256",
  durationMillis: 1
})

it.effect("the lag of a rotation ends with the first handshake that uses the new SVID, on each side", () =>
  Effect.gen(function* () {
    const lags = Effect.map(
      Effect.forEach(["Client", "Server"], (side) =>
        Metric.value(Metric.taggedWithLabels(TransportMetrics.rotationLag, labels({ side })))
      ),
      (states) => states.flatMap(({ count, sum }) => [count, sum])
    )
    const ownId = "spiffe://metrics.test/rotating"
    let before = yield* lags
    const since = Effect.gen(function* () {
      const now = yield* lags
      const change = now.map((value, i) => Math.round((value - (before[i] ?? 0)) * 1000) / 1000)
      before = now
      return change
    })
    const record = yield* AuditLog.recorder
    const opened: Array<"Client" | "Server"> = []
    const open = (side: "Client" | "Server", fingerprint: string, time: number) => {
      opened.push(side)
      record(established(side, ownId, fingerprint, time))
    }
    // The first SVID there is took nobody's place.
    record(rotated(ownId, "one", 1_000))
    open("Client", "one", 2_000)
    open("Server", "one", 2_000)
    expect(yield* since).toEqual([0, 0, 0, 0])
    record(rotated(ownId, "two", 10_000))
    // Told again, by somebody slower.
    record(rotated(ownId, "two", 12_000))
    open("Client", "one", 12_500)
    expect(yield* since).toEqual([0, 0, 0, 0])
    open("Client", "two", 13_000)
    open("Client", "two", 20_000)
    expect(yield* since).toEqual([1, 3, 0, 0])
    // Here the handshake was quicker than the news of the third.
    open("Server", "three", 30_000)
    record(rotated(ownId, "three", 31_000))
    expect(yield* since).toEqual([0, 0, 1, 0])
    // Leaves the gauge of open connections as it was.
    for (const side of opened) {
      record({
        _tag: "ConnectionClosed",
        time: 0,
        side,
        connectionId: "c1",
        address: "127.0.0.1:1",
        peerId: "spiffe://metrics.test/api",
        reason: "Idle",
        requests: 0,
        bytesRead: 0,
        bytesWritten: 0,
        durationMillis: 0
      })
    }
  }).pipe(Effect.provide(AuditLog.layerMemory([])))
)

it.effect("refusals that were summed count under the same reason as one that is on record by itself", () =>
  Effect.gen(function* () {
    const reason = "OfTheMetricsTest"
    const record = yield* AuditLog.recorder
    record({
      _tag: "ConnectionRefused",
      time: 0,
      side: "Server",
      connectionId: "s1",
      address: "127.0.0.1:1",
      expectedId: "spiffe://metrics.test/api",
      actualId: null,
      error: "IdentityError",
      reason,
      description: "",
      durationMillis: 0
    })
    const summed = { _tag: "ConnectionsRefused", time: 0, side: "Server", since: 0, description: "" } as const
    record({ ...summed, reason: `IdentityError ${reason}`, count: 2 })
    record({ ...summed, reason: "maxOfTheMetricsTest", count: 5 })
    const refused = Effect.map(lines("OfTheMetricsTest"), (all) =>
      all.filter((line) => line.includes("handshakes_total"))
    )
    expect((yield* refused).map((line) => /reason="(\w+)".* (\d+)$/.exec(line)?.slice(1))).toEqual([
      [reason, "3"],
      ["maxOfTheMetricsTest", "5"]
    ])
  }).pipe(Effect.provide(AuditLog.layerMemory([])))
)

it.effect("every metric says in the text what it is, and durations have their unit in the name", () =>
  Effect.gen(function* () {
    const all = Object.values(TransportMetrics).flatMap((value) => ("unsafeValue" in value ? [value] : []))
    expect(all.length).toBeGreaterThan(18)
    // To be asked for its value is to be there.
    for (const metric of all) metric.unsafeValue([])
    const names = Array.from((yield* PrometheusMetrics.text).matchAll(/^# TYPE (transport_\S+) (\S+)$/gm))
    expect(names.length).toBe(all.length)
    for (const [, name = "", type] of names) {
      expect(yield* lines(`# HELP ${name} `), name).toHaveLength(1)
      if (type === "counter") expect(name).toMatch(/_total$/)
      if (type === "histogram") expect(name).toMatch(/_seconds$/)
    }
    expect(yield* lines("# HELP transport_pool_wait_seconds")).toEqual([expect.stringMatching(/ in seconds$/)])
  })
)
