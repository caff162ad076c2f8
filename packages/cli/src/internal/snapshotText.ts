/** A snapshot of the inspector as lines for a person. */
import type * as Snapshot from "@agentweave/inspector/Snapshot"
import { isServerErrorStatus } from "@agentweave/transport/RequestTelemetry"
import { eventLine } from "./auditLine.js"
import type { Colours } from "./colours.js"
import { printable } from "./printable.js"

/** Most entries of each list; all of them are in the JSON. */
const shown = 5

/** Most characters of an event's line. */
const maxEvent = 150

const count = (value: number): string => value.toLocaleString("en")

const counted = (value: number, one: string, many: string): string => `${count(value)} ${value === 1 ? one : many}`

export const duration = (millis: number | null): string => {
  if (millis === null) return "-"
  if (millis < 1_000) return `${Math.round(millis)} ms`
  if (millis < 60_000) return `${(millis / 1_000).toFixed(1)} s`
  const minutes = Math.floor(millis / 60_000)
  if (minutes < 60) return `${minutes} min ${Math.floor(millis / 1_000) % 60} s`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`
}

const sum = (values: ReadonlyArray<number>): number => values.reduce((all, value) => all + value, 0)

/** Requests a second over the last ten seconds that are over; over one slot where it is longer. */
const rate = ({ requests, slotMillis }: Snapshot.Traffic): string => {
  const slots = Math.max(1, Math.round(10_000 / slotMillis))
  const perSecond = sum(requests.slice(-slots - 1, -1)) / ((slots * slotMillis) / 1_000)
  return `${perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond))} / s`
}

const traffic = (traffic: Snapshot.Traffic, { bad }: Colours): string => {
  const { errors, p50Millis, p99Millis, requests } = traffic
  const [all, failed] = [sum(requests), sum(errors)]
  const share = all === 0 ? "none failed" : `${((100 * failed) / all).toFixed(1)} % failed`
  const times = `median ${duration(p50Millis)}, 99 of 100 within ${duration(p99Millis)}`
  return `${rate(traffic)}, ${failed > 0 ? bad(share) : share}, ${times}, ${count(traffic.total)} since the start`
}

const identity = (snapshot: Snapshot.Snapshot, colours: Colours): ReadonlyArray<string> => {
  const { bundles, freshness, problem, svid } = snapshot.identity
  const kinds = { Fresh: colours.good, Stale: colours.warn, Expired: colours.bad, None: colours.bad }
  const left = svid === null ? "" : `, ${duration(Math.max(0, svid.notAfter - snapshot.time))} left`
  const serial = svid === null ? "" : `, serial ${printable(svid.serialNumber)}`
  const authorities = bundles.map(
    (bundle) => `${printable(bundle.trustDomain)} (${counted(bundle.authorities, "authority", "authorities")})`
  )
  return [
    colours.strong(printable(svid?.spiffeId ?? "no identity")),
    `identity  ${kinds[freshness](freshness)}${left}${serial}, on record for ${duration(snapshot.time - snapshot.startedAt)}`,
    ...(problem === null ? [] : [`          ${colours.bad(printable(`${problem.reason}: ${problem.description}`))}`]),
    `bundles   ${authorities.length === 0 ? "none" : authorities.join(", ")}`,
    `requests  out: ${traffic(snapshot.outgoing, colours)}`,
    `          in:  ${traffic(snapshot.incoming, colours)}`
  ]
}

const pool = ({ pool }: Snapshot.Snapshot): ReadonlyArray<string> =>
  pool === null
    ? []
    : [
        `pool      ${count(pool.inUse)} in use, ${count(pool.idle)} idle, ${count(pool.opening)} opening, ${count(pool.waiting)} waiting`
      ]

const breaker = ({ breaker }: Snapshot.Peer, { bad, good, warn }: Colours): ReadonlyArray<string> => {
  if (breaker === null) return []
  const state = { Closed: good("closed"), HalfOpen: warn("half-open"), Open: bad("open") }[breaker.state]
  const failures =
    breaker.failureCount === 0 ? "" : `, ${counted(breaker.failureCount, "failure", "failures")} in a row`
  const rejected = breaker.totalRejected === 0 ? "" : `, ${count(breaker.totalRejected)} not let through`
  return [`circuit ${state}${breaker.isolated ? " by hand" : ""}${failures}${rejected}`]
}

const peer = (peer: Snapshot.Peer, now: number, colours: Colours): ReadonlyArray<string> => {
  const facts = [
    counted(peer.openConnections, "connection", "connections"),
    ...breaker(peer, colours),
    ...(peer.retryBudget === null ? [] : [`${count(peer.retryBudget)} retries allowed`]),
    ...(peer.pool === null || peer.pool.waiting === 0 ? [] : [colours.warn(`${count(peer.pool.waiting)} waiting`)]),
    peer.lastSeen === null ? "never seen" : `seen ${duration(now - peer.lastSeen)} ago`
  ]
  return [
    `  ${printable(peer.id)}`,
    `    ${facts.join("; ")}`,
    ...(peer.outgoing === null ? [] : [`    out: ${traffic(peer.outgoing, colours)}`]),
    ...(peer.incoming === null ? [] : [`    in:  ${traffic(peer.incoming, colours)}`])
  ]
}

const peers = ({ morePeers, peers, time }: Snapshot.Snapshot, colours: Colours): ReadonlyArray<string> => [
  "",
  colours.strong(peers.length === 0 ? "no peer yet" : counted(peers.length + morePeers, "peer", "peers")),
  ...peers.flatMap((one) => peer(one, time, colours)),
  ...(morePeers === 0 ? [] : [colours.muted(`  ${count(morePeers)} more are not shown`)])
]

const refusal = ({ event, hint }: Snapshot.Refusal, now: number, { bad, muted }: Colours): ReadonlyArray<string> => {
  const ago = `${duration(now - event.time)} ago`
  const advice = hint === null ? [] : [muted(`    ${printable(hint)}`)]
  switch (event._tag) {
    case "ConnectionRefused": {
      const way = event.side === "Client" ? "we called" : "called from"
      const kind = bad(printable(`${event.error} ${event.reason}`))
      return [`  ${ago}  ${kind}, ${way} ${printable(event.address)}: ${printable(event.description)}`, ...advice]
    }
    case "ConnectionsRefused":
      return [
        `  ${ago}  ${bad(printable(event.reason))}, ${count(event.count)} times: ${printable(event.description)}`,
        ...advice
      ]
  }
}

const refusals = ({ refusals, time, totalRefused }: Snapshot.Snapshot, colours: Colours): ReadonlyArray<string> =>
  totalRefused === 0
    ? []
    : [
        "",
        colours.strong(`${count(totalRefused)} refused since the start`),
        ...refusals.slice(0, shown).flatMap((one) => refusal(one, time, colours))
      ]

const request = (request: Snapshot.Snapshot["requests"][number], now: number, { bad, good, warn }: Colours): string => {
  const { error, status } = request
  const outcome = printable(error ?? (status === undefined ? "no response" : `${status}`))
  const paint =
    error !== undefined || status === undefined || isServerErrorStatus(status) ? bad : status >= 400 ? warn : good
  const way = request.side === "Client" ? "to" : "from"
  const attempt = request.attempt > 1 ? `, attempt ${count(request.attempt)}` : ""
  const what = `${request.method} ${request.path} ${way} ${request.peerId}`
  return `  ${duration(now - request.time)} ago  ${paint(outcome)}  ${printable(what)}, ${duration(request.durationMillis)}${attempt}`
}

/** An event has fingerprints and more: what stands first in it is what a glance needs. */
const shortened = (line: string): string => (line.length > maxEvent ? `${line.slice(0, maxEvent)}...` : line)

/** A list with its title, where there is anything in it. */
const list = (title: string, lines: ReadonlyArray<string>, { strong }: Colours): ReadonlyArray<string> =>
  lines.length === 0 ? [] : ["", strong(title), ...lines]

/** The lines of a snapshot, the newest of each list first. */
export const snapshotLines = (snapshot: Snapshot.Snapshot, colours: Colours): ReadonlyArray<string> => [
  ...identity(snapshot, colours),
  ...pool(snapshot),
  ...peers(snapshot, colours),
  ...refusals(snapshot, colours),
  ...list(
    "last requests",
    snapshot.requests.slice(0, shown).map((one) => request(one, snapshot.time, colours)),
    colours
  ),
  ...list(
    "last events",
    snapshot.events.slice(0, shown).map((event) => `  ${shortened(printable(eventLine(event)))}`),
    colours
  )
]
