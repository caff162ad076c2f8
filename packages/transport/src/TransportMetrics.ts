/**
 * The transport's metrics. They are made from the audit events, in one place, so that the two never disagree; labels are
 * literals and peers' SPIFFE IDs, and bounded.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import type { AuditEvent } from "./AuditEvent.js"
import { Labelled } from "./internal/labelled.js"

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
  description: "TLS handshakes, with the verification of the peer",
  incremental: true
})

/**
 * Duration of handshakes that succeeded, by `side`, in seconds: TCP, TLS and the verification.
 *
 * @since 0.1.0
 * @category metrics
 */
export const handshakeDuration = Metric.histogram("transport_handshake_duration_seconds", seconds)

/**
 * Connections that are open now, by `side`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const openConnections = Metric.gauge("transport_open_connections", { description: "open, verified connections" })

/**
 * Connections that ended, by `side` and `reason`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const closedConnections = Metric.counter("transport_closed_connections_total", { incremental: true })

/**
 * Requests by `side`, `peer` and `outcome`: a class of status (`2xx`), or the tag of the error.
 *
 * @since 0.1.0
 * @category metrics
 */
export const requests = Metric.counter("transport_requests_total", { incremental: true })

/**
 * Duration of requests, from their start to the end of the response's body, by `side`, in seconds.
 *
 * @since 0.1.0
 * @category metrics
 */
export const requestDuration = Metric.histogram("transport_request_duration_seconds", seconds)

/**
 * Attempts after a request's first, by `peer`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const retries = Metric.counter("transport_retries_total", { incremental: true })

/**
 * Leases refused, by `limit` (`Target`, `Total`, `Waiting`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const poolExhausted = Metric.counter("transport_pool_exhausted_total", { incremental: true })

/**
 * Leases reported as leaked.
 *
 * @since 0.1.0
 * @category metrics
 */
export const leakedLeases = Metric.counter("transport_pool_leaked_leases_total", { incremental: true })

/**
 * Connections of the pool by `state` (`inUse`, `idle`) and fibers waiting for one (`waiting`); of all pools of the process.
 *
 * @since 0.1.0
 * @category metrics
 */
export const pool = Metric.gauge("transport_pool")

/**
 * Transitions of circuit breakers, by `peer` and the state entered (`to`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const circuitTransitions = Metric.counter("transport_circuit_transitions_total", { incremental: true })

/**
 * What was wrong with our own identity, by `problem` (`Discarded`, `Withdrawn`, `Stale`, `Expired`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const identityProblems = Metric.counter("transport_identity_problems_total", { incremental: true })

/**
 * Rotations taken into use, by `what` (`Svid`, `Bundle`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const rotations = Metric.counter("transport_identity_rotations_total", { incremental: true })

/**
 * Seconds until our own SVID expires; negative once it has.
 *
 * @since 0.1.0
 * @category metrics
 */
export const secondsToExpiry = Metric.gauge("transport_identity_expiry_seconds")

/**
 * 1 for the freshness our identity has now and 0 for the others, by `freshness` (`Fresh`, `Stale`, `Expired`, `None`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const identityFreshness = Metric.gauge("transport_identity_freshness")

const byHandshake = new Labelled(handshakes, ["side", "outcome", "reason"])
const byHandshakeSide = new Labelled(handshakeDuration, ["side"])
const byClosed = new Labelled(closedConnections, ["side", "reason"])
const byOpen = new Labelled(openConnections, ["side"])
const byRequest = new Labelled(requests, ["side", "peer", "outcome"])
const byRequestSide = new Labelled(requestDuration, ["side"])
const byRetry = new Labelled(retries, ["peer"])
const byLimit = new Labelled(poolExhausted, ["limit"])
const byCircuit = new Labelled(circuitTransitions, ["peer", "to"])
const byProblem = new Labelled(identityProblems, ["problem"])
const byRotation = new Labelled(rotations, ["what"])

const open = { Client: 0, Server: 0 }
const classes = ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"] as const

const outcomeOf = (status: number | undefined, error: string | undefined): string =>
  error ?? classes[Math.floor((status ?? 0) / 100)] ?? "other"

/**
 * Counts an event. Synchronous and cheap: it is called for every event that is put on record.
 *
 * @since 0.1.0
 * @category recording
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
      return
    case "ConnectionRefused":
      byHandshake.update(1, event.side, "Refused", event.reason)
      return
    case "ConnectionClosed":
      open[event.side]--
      byOpen.update(open[event.side], event.side)
      byClosed.update(1, event.side, event.reason)
      return
    case "SvidRotated":
      byRotation.update(1, "Svid")
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
      return
  }
}
