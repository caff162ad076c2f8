import type { Summary } from "../Activity.js"
import { hintFor } from "../RefusalHint.js"
import type { ActivityState, PeerActivity } from "./activityState.js"

const maxConnectionsOfPeer = 16

const peer = ({ connections, id, incoming, lastSeen, open, outgoing }: PeerActivity, now: number) => ({
  id,
  lastSeen,
  openConnections: open,
  connections: Array.from(connections)
    .slice(-maxConnectionsOfPeer)
    .reverse()
    .map((connection) => ({ ...connection })),
  outgoing: outgoing?.read(now) ?? null,
  incoming: incoming?.read(now) ?? null
})

export const summary = (state: ActivityState, now: number): Summary => {
  const { events, history, refusals, requests } = state.lists
  return {
    startedAt: state.startedAt,
    outgoing: state.traffic("Client", now),
    incoming: state.traffic("Server", now),
    history,
    peers: Array.from(state.peers.values(), (one) => peer(one, now)),
    refusals: refusals.map((event) => ({ event, hint: hintFor(event) })),
    totalRefused: state.totalRefused,
    events,
    requests
  }
}
