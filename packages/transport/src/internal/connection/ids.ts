import { globalValue } from "effect/GlobalValue"

/** How many connections and requests there were in this process, whatever layers they are of. */
const counts = globalValue("@agentweave/transport/connection/ids", () => ({ connections: 0, requests: 0 }))

/** The audit log's `connectionId`. */
export const newConnectionId = (side: "Client" | "Server"): string =>
  `${side === "Client" ? "c" : "s"}${++counts.connections}`

/** The audit log's `requestId`. */
export const newRequestId = (side: "Client" | "Server"): string =>
  `${side === "Client" ? "r" : "q"}${++counts.requests}`
