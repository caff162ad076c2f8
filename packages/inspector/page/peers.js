// @ts-check
/** Each peer with its connections and policies. */
import { small } from "./charts.js"
import { chip, count, duration, fact, identifier, section, table } from "./format.js"
import { h } from "./render.js"

/** @typedef {typeof import("../src/Snapshot.js").Snapshot.Encoded} Snapshot */
/** @typedef {Snapshot["peers"][number]} Peer */

/** @type {Record<"Closed" | "Open" | "HalfOpen", { kind: "good" | "warn" | "bad", text: string }>} */
const states = {
  Closed: { kind: "good", text: "closed" },
  HalfOpen: { kind: "warn", text: "half-open" },
  Open: { kind: "bad", text: "open" }
}

/**
 * @param {Peer} peer
 * @param {boolean} canReset
 */
const breaker = ({ breaker, id }, canReset) => {
  if (breaker === null) return null
  const { kind, text } = states[breaker.state]
  return h(
    "div",
    { class: "row" },
    h("span", {}, "Circuit breaker"),
    chip(breaker.isolated ? "open by hand" : text, kind),
    h(
      "span",
      { class: "muted" },
      `failures in a row: ${count(breaker.failureCount)}; calls: ${count(breaker.totalCalls)}, failed: ${count(breaker.totalFailures)}, not let through: ${count(breaker.totalRejected)}`
    ),
    canReset && breaker.state !== "Closed"
      ? h("button", { type: "button", "data-reset": id, "aria-label": `Reset the circuit breaker of ${id}` }, "Reset")
      : null
  )
}

/**
 * @param {Peer} peer
 * @param {number} now
 */
const connections = ({ connections, id, openConnections }, now) =>
  connections.length === 0
    ? null
    : h(
        "details",
        {},
        h("summary", {}, `Newest ${count(connections.length)} of ${count(openConnections)} connections`),
        table(
          `Connections of ${id}`,
          ["ID", "side", "address", "age", "requests", "in flight", "TLS", "cipher", "peer's serial number"],
          connections.map((one) =>
            h(
              "tr",
              { "data-key": one.connectionId },
              h("td", { class: "number" }, one.connectionId),
              h("td", {}, one.side === "Client" ? "ours" : "theirs"),
              h("td", { class: "number" }, one.address),
              h("td", { class: "number" }, duration(now - one.establishedAt)),
              h("td", { class: "number" }, count(one.requests)),
              h("td", { class: "number" }, count(one.inFlight)),
              h("td", {}, one.tlsVersion),
              h("td", {}, one.cipher),
              h("td", { class: "number" }, one.peerSerialNumber)
            )
          )
        )
      )

/**
 * @param {Peer} peer
 * @param {Snapshot} snapshot
 */
const card = (peer, { canReset, time }) =>
  h(
    "li",
    { class: "card", "data-key": peer.id },
    h("h3", {}, identifier(peer.id)),
    h(
      "dl",
      { class: "facts" },
      fact("connections", count(peer.openConnections)),
      peer.pool === null
        ? null
        : fact(
            "pool",
            `${count(peer.pool.inUse)} in use, ${count(peer.pool.idle)} idle, ${count(peer.pool.opening)} opening, ${count(peer.pool.waiting)} waiting`,
            "long"
          ),
      peer.retryBudget === null ? null : fact("retries allowed now", count(peer.retryBudget)),
      fact("last seen", peer.lastSeen === null ? "never" : `${duration(time - peer.lastSeen)} ago`)
    ),
    breaker(peer, canReset),
    small(peer.outgoing, "requests to it"),
    small(peer.incoming, "requests from it"),
    connections(peer, time)
  )

/** @param {Snapshot} snapshot */
export const peers = (snapshot) =>
  section(
    "Peers",
    "wide",
    snapshot.peers.length === 0
      ? h("p", { class: "muted" }, "No peer yet.")
      : h("ul", { class: "cards" }, ...snapshot.peers.map((peer) => card(peer, snapshot))),
    snapshot.morePeers === 0
      ? null
      : h("p", { class: "caption muted" }, `${count(snapshot.morePeers)} more are not shown`)
  )
