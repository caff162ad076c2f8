/**
 * The transport's metrics. They are made from the audit events, in one place, so that the two never disagree; labels are
 * literals and peers' SPIFFE IDs, and bounded.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import type { AuditEvent } from "./AuditEvent.js"
import { RotationLag } from "./internal/identity/rotationLag.js"
import { BoundedLabels } from "./internal/metrics/boundedLabels.js"

const seconds = MetricBoundaries.fromIterable([
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30
])

/**
 * Handshakes by `side` (`Client`, `Server`), `outcome` (`Established`, `Refused`) and `reason` (of the typed error).
 *
 * @since 0.1.0
 * @category metrics
 */
export const handshakes = Metric.counter("transport_handshakes_total", {
  description: "TLS handshakes, with the verification of the peer, by outcome and reason",
  incremental: true
})

/**
 * Duration of handshakes that succeeded, by `side`, in seconds: TCP, TLS and the verification.
 *
 * @since 0.1.0
 * @category metrics
 */
export const handshakeDuration = Metric.histogram(
  "transport_handshake_duration_seconds",
  seconds,
  "TCP, TLS and the verification of handshakes that succeeded, in seconds"
)

/**
 * Connections that are open now, by `side`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const openConnections = Metric.gauge("transport_open_connections", {
  description: "verified connections that are open"
})

/**
 * Connections that ended, by `side` and `reason`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const closedConnections = Metric.counter("transport_closed_connections_total", {
  description: "verified connections that ended, by reason",
  incremental: true
})

/**
 * Requests by `side`, `peer` and `outcome`: a class of status (`2xx`), or the tag of the error.
 *
 * @since 0.1.0
 * @category metrics
 */
export const requests = Metric.counter("transport_requests_total", {
  description: "requests that ended, by class of status or error",
  incremental: true
})

/**
 * Duration of requests, from their start to the end of the response's body, by `side`, in seconds.
 *
 * @since 0.1.0
 * @category metrics
 */
export const requestDuration = Metric.histogram(
  "transport_request_duration_seconds",
  seconds,
  "requests from their start to the end of the response, in seconds"
)

/**
 * Attempts after a request's first, by `peer`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const retries = Metric.counter("transport_retries_total", {
  description: "attempts after the first of a request",
  incremental: true
})

/**
 * Retries a peer's budget allows now, by `peer`: of budgets that have a `target` and were drawn from. Brought up to date
 * when one is drawn from, when metrics are rendered by `PrometheusMetrics`, and each `cleanupInterval` of a pool. The first
 * 1,000 peers have one.
 *
 * @since 0.1.0
 * @category metrics
 */
export const retryBudget = Metric.gauge("transport_retry_budget_available_retries", {
  description: "retries that the budget of a peer allows now"
})

/**
 * Retries that did not take place because the budget was used up, by `peer` (empty for a budget without a `target`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const retryBudgetExhausted = Metric.counter("transport_retry_budget_exhausted_total", {
  description: "retries refused because the budget of the peer was used up",
  incremental: true
})

/**
 * Leases refused, by `limit` (`Target`, `Total`, `Waiting`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const poolExhausted = Metric.counter("transport_pool_exhausted_total", {
  description: "leases refused, by the limit that was reached",
  incremental: true
})

/**
 * How long those waited who found no connection and no room for one, by `outcome`: `Leased`, `Refused` (the wait took too
 * long, or the pool closed), `Withdrawn` (interrupted). In seconds; who need not wait is not in it. Handshakes are not part
 * of the wait. Of pools, and of channels of their own.
 *
 * @since 0.1.0
 * @category metrics
 */
export const poolWait = Metric.histogram(
  "transport_pool_wait_seconds",
  seconds,
  "wait for a connection to become free, of those who had to wait, in seconds"
)

/**
 * Leases reported as leaked.
 *
 * @since 0.1.0
 * @category metrics
 */
export const leakedLeases = Metric.counter("transport_pool_leaked_leases_total", {
  description: "leases held longer than the leak threshold",
  incremental: true
})

/**
 * Connections of the pool by `state` (`inUse`, `idle`) and fibers waiting for one (`waiting`); of all pools of the process.
 *
 * @since 0.1.0
 * @category metrics
 */
export const pool = Metric.gauge("transport_pool", {
  description: "connections of the pools by state, and the fibers waiting for one"
})

/**
 * Transitions of circuit breakers, by `peer` and the state entered (`to`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const circuitTransitions = Metric.counter("transport_circuit_transitions_total", {
  description: "transitions of circuit breakers, by the state entered",
  incremental: true
})

/**
 * 1 for the state a circuit breaker is in and 0 for the others, by `peer` and `state` (`Closed`, `Open`, `HalfOpen`): of the
 * breakers of registries that have left `Closed` at least once, the first 1,000 of them. One without this metric was never
 * anything but closed. A breaker whose open time is over is half-open from its next call on.
 *
 * @since 0.1.0
 * @category metrics
 */
export const circuitState = Metric.gauge("transport_circuit_state", {
  description: "1 for the state the circuit breaker of a peer is in, 0 for the others"
})

/**
 * Problems of our own identity, by `problem` (`Discarded`, `Withdrawn`, `Stale`, `Expired`, `Unavailable`,
 * `Exposed`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const identityProblems = Metric.counter("transport_identity_problems_total", {
  description: "problems with our own identity",
  incremental: true
})

/**
 * Rotations taken into use, by `what` (`Svid`, `Bundle`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const rotations = Metric.counter("transport_identity_rotations_total", {
  description: "SVIDs and bundles taken into use",
  incremental: true
})

/**
 * Time from a rotation of our SVID (its `SvidRotated` event) to the first handshake that used the new one, by `side`, in
 * seconds; zero where the handshake was quicker than the news. It shows how long an old SVID went on being all that peers
 * saw, so without new connections it is the time until there is one. The first SVID of a process is no rotation.
 *
 * @since 0.1.0
 * @category metrics
 */
export const rotationLag = Metric.histogram(
  "transport_identity_rotation_lag_seconds",
  MetricBoundaries.fromIterable([0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400]),
  "time from a rotation of our SVID to the first handshake that used it, in seconds"
)

/**
 * Seconds until our own SVID expires; negative once it has.
 *
 * @since 0.1.0
 * @category metrics
 */
export const secondsToExpiry = Metric.gauge("transport_identity_expiry_seconds", {
  description: "seconds until our own SVID expires"
})

/**
 * 1 for the freshness our identity has now and 0 for the others, by `freshness` (`Fresh`, `Stale`, `Expired`, `None`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const identityFreshness = Metric.gauge("transport_identity_freshness", {
  description: "1 for the freshness our own identity has, 0 for the others"
})

const byHandshake = new BoundedLabels(handshakes, ["side", "outcome", "reason"])
const byHandshakeSide = new BoundedLabels(handshakeDuration, ["side"])
const byClosed = new BoundedLabels(closedConnections, ["side", "reason"])
const byOpen = new BoundedLabels(openConnections, ["side"])
const byRequest = new BoundedLabels(requests, ["side", "peer", "outcome"])
const byRequestSide = new BoundedLabels(requestDuration, ["side"])
const byRetry = new BoundedLabels(retries, ["peer"])
const byLimit = new BoundedLabels(poolExhausted, ["limit"])
const byCircuit = new BoundedLabels(circuitTransitions, ["peer", "to"])
const byProblem = new BoundedLabels(identityProblems, ["problem"])
const byRotation = new BoundedLabels(rotations, ["what"])
const byLag = new BoundedLabels(rotationLag, ["side"])
const lag = new RotationLag((seconds, side) => byLag.update(seconds, side))

const open = { Client: 0, Server: 0 }
const classes = ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"] as const

const outcomeOf = (status: number | undefined, error: string | undefined): string =>
  error ?? classes[Math.floor((status ?? 0) / 100)] ?? "other"

const circuitStates = ["Closed", "Open", "HalfOpen"] as const
const byCircuitState = new BoundedLabels(circuitState, ["peer", "state"], {
  max: 1_000 * circuitStates.length,
  beyond: "nothing"
})

const inState = (peer: string, state: string): void => {
  for (const one of circuitStates) byCircuitState.update(one === state ? 1 : 0, peer, one)
}

/**
 * Says that a circuit breaker was made, which begins closed, whatever became of the one there was before. For who makes
 * breakers: it costs nothing for a peer that is not in {@link circuitState}.
 *
 * @since 0.1.0
 * @category operations
 */
export const unsafeCircuitMade = (peer: string): void => {
  if (byCircuitState.knows(peer, "Closed")) inState(peer, "Closed")
}

/**
 * Counts an event. Synchronous and cheap: it is called for every event that is put on record.
 *
 * @since 0.1.0
 * @category operations
 */
export const unsafeObserve = (event: AuditEvent): void => {
  switch (event._tag) {
    case "RequestStarted":
      if (event.attempt > 1) byRetry.update(1, event.peerId)
      return
    case "RequestEnded":
      byRequest.update(1, event.side, event.peerId, outcomeOf(event.status, event.error))
      byRequestSide.update(event.durationMillis / 1000, event.side)
      return
    case "ConnectionAttempted":
      return
    case "ConnectionEstablished":
      byHandshake.update(1, event.side, "Established", "")
      byHandshakeSide.update(event.durationMillis / 1000, event.side)
      open[event.side]++
      byOpen.update(open[event.side], event.side)
      lag.established(event)
      return
    case "ConnectionRefused":
      byHandshake.update(1, event.side, "Refused", event.reason)
      return
    case "ConnectionsRefused":
      // Of an error the sum names the tag too, which a refusal on record by itself has in another field.
      byHandshake.update(event.count, event.side, "Refused", event.reason.slice(event.reason.indexOf(" ") + 1))
      return
    case "ConnectionClosed":
      open[event.side]--
      byOpen.update(open[event.side], event.side)
      byClosed.update(1, event.side, event.reason)
      return
    case "SvidRotated":
      byRotation.update(1, "Svid")
      lag.rotated(event)
      return
    case "BundleRotated":
      byRotation.update(1, "Bundle")
      return
    case "IdentityProblem":
      byProblem.update(1, event.problem)
      return
    case "PoolExhausted":
      byLimit.update(1, event.limit)
      return
    case "LeaseLeaked":
      leakedLeases.unsafeUpdate(1, [])
      return
    case "CircuitStateChanged":
      byCircuit.update(1, event.target, event.to)
      inState(event.target, event.to)
      return
  }
}
