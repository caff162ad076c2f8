import type { ClientRequest } from "node:http"
import { Agent, type AgentOptions, type RequestOptions } from "node:https"
import type { Duplex } from "node:stream"
import type { ConnectOptions, StreamConnection } from "@agentweave/transport/Connector"
import { ConnectionError } from "@agentweave/transport/TransportError"
import { hostOf } from "@agentweave/transport/Wire"
import * as Effect from "effect/Effect"
import type { Opener } from "./opener.js"
import { portOf } from "./urlPort.js"

type OnSocket = (error: Error | null, socket: Duplex) => void

/** The options that all connections of an agent share. */
export type Common = Omit<ConnectOptions, "host" | "port">

const elsewhere = (expected: string, address: string): ConnectionError =>
  new ConnectionError({
    reason: "NoAddress",
    outcome: "NotSent",
    address,
    description: `expected a request to ${expected}, the one origin that this agent connects to`
  })

/** Node's own agent, but for where its sockets come from. No option of a request's has a say in their TLS. */
export class SecureAgent extends Agent {
  private readonly open: Opener
  private readonly common: Common
  private readonly origin: URL | undefined
  private readonly connections = new WeakMap<Duplex, StreamConnection>()

  constructor(open: Opener, common: Common, origin: URL | undefined, options: AgentOptions) {
    super(options)
    this.open = open
    this.common = common
    this.origin = origin
  }

  override createConnection(options: RequestOptions, onSocket?: OnSocket): Duplex | null | undefined {
    const host = options.host ?? "localhost"
    const port = Number(options.port ?? 443)
    this.open(
      this.target(hostOf(host), port),
      ({ connection, socket }) => {
        this.connections.set(socket, connection)
        onSocket?.(null, socket)
      },
      // Node's own type has a socket there also where there is none.
      (cause) => (onSocket as ((error: Error) => void) | undefined)?.(cause)
    )
    return undefined
  }

  private target(host: string, port: number): Effect.Effect<ConnectOptions, ConnectionError> {
    const { common, origin } = this
    if (origin !== undefined && (host.toLowerCase() !== hostOf(origin.hostname) || port !== portOf(origin))) {
      return Effect.fail(elsewhere(origin.origin, `${host}:${port}`))
    }
    return Effect.succeed({ ...common, host, port })
  }

  /** A socket whose certificates have ended is not used again, however late its supervisor is. */
  override reuseSocket(socket: Duplex, request: ClientRequest): void {
    if (this.connections.get(socket)?.isUsable() === false) socket.destroy()
    else super.reuseSocket(socket, request)
  }
}
