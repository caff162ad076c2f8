/** The peers of a process, from all that knows of them: connections, the pool, circuit breakers and retry budgets. */
import type { CircuitBreakerMetrics } from "@agentweave/transport/CircuitBreakerMetrics"
import type { PeerStats } from "@agentweave/transport/ConnectionPool"
import type { Summary } from "../Activity.js"
import type { Peer } from "../Snapshot.js"

/** Most peers of a snapshot. */
export const maxPeers = 64

export interface Parts {
  readonly active: Summary["peers"]
  readonly pool: Readonly<Record<string, PeerStats>>
  readonly breakers: ReadonlyMap<string, CircuitBreakerMetrics>
  readonly budgets: ReadonlyMap<string, number>
}

const silent: Omit<Summary["peers"][number], "id"> = {
  lastSeen: null,
  openConnections: 0,
  connections: [],
  outgoing: null,
  incoming: null
}

/** A circuit that is not closed first, then what was seen last. */
const byUrgency = (a: Peer, b: Peer): number => {
  const isTroubled = ({ breaker }: Peer) => Number(breaker !== null && breaker.state !== "Closed")
  return isTroubled(b) - isTroubled(a) || (b.lastSeen ?? 0) - (a.lastSeen ?? 0)
}

const byId = (a: Peer, b: Peer): number => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

/** All peers by ID. Where there are more than a snapshot has room for, the least urgent are left out and counted. */
export const merge = ({ active, breakers, budgets, pool }: Parts): { peers: ReadonlyArray<Peer>; more: number } => {
  const activity = new Map(active.map((peer) => [peer.id, peer]))
  const shares = new Map(Object.entries(pool))
  const ids = new Set([...activity.keys(), ...shares.keys(), ...breakers.keys()])
  const all = Array.from(
    ids,
    (id): Peer => ({
      ...(activity.get(id) ?? { id, ...silent }),
      pool: shares.get(id) ?? null,
      breaker: breakers.get(id) ?? null,
      retryBudget: budgets.get(id) ?? null
    })
  )
  return { peers: all.sort(byUrgency).slice(0, maxPeers).sort(byId), more: Math.max(0, all.length - maxPeers) }
}
