import type { Server, Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import type { PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import * as Acceptor from "@agentweave/transport/Acceptor"
import { ConnectionError } from "@agentweave/transport/TransportError"
import type { TlsRefusal } from "@agentweave/transport/Wire"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { keepAliveInitialDelay } from "../client/dial.js"
import { chainRefused, fromHandshake, handshakeCut } from "../errors.js"
import type { TlsVersions } from "../tls/secureContext.js"
import type { Handshake } from "../tls/tlsWire.js"
import { acceptTls, askOpenSsl } from "./acceptTls.js"
import { type ServerContext, ServerContexts } from "./serverContexts.js"

/** How a server takes the TCP connections of peers. */
export interface AcceptPeer {
  readonly acceptor: Acceptor.Acceptor<ServerContext>
  readonly authorize: PeerMatcher
  /** See `AcceptOptions`. A client that agrees to none of them by offering none is refused where `requiresProtocol`. */
  readonly protocols: ReadonlyArray<string>
  readonly requiresProtocol: boolean
}

/** The facts of a server's handshake: Node has not asked OpenSSL about the client's chain. */
export const serverHandshake = (socket: TLSSocket, authorize: PeerMatcher): Handshake => ({
  refusal: (): TlsRefusal | undefined => {
    const refused = askOpenSsl(socket)
    return refused === undefined ? undefined : chainRefused(refused, authorize)
  },
  certificateRequested: () => true
})

const noProtocol = (address: string, protocols: ReadonlyArray<string>): ConnectionError =>
  new ConnectionError({
    reason: "Negotiation",
    outcome: "NotSent",
    address,
    description: `expected a client that speaks ${protocols.join(" or ")} (ALPN), it named no protocol`
  })

/**
 * The server's side of TLS over a TCP connection that has come in, as far as the acceptor lets it. `onSecure` is called when
 * the handshake has ended, in which turn the attempt is to be told.
 */
export const acceptPeer = (
  tcp: Socket,
  { acceptor, authorize: matcher, protocols, requiresProtocol }: AcceptPeer,
  onSecure: (attempt: Acceptor.Attempt<ServerContext>, socket: TLSSocket) => void
): void => {
  let onGone = () => {}
  const address = `${tcp.remoteAddress}:${tcp.remotePort}`
  const attempt = acceptor.accept({
    address,
    host: tcp.remoteAddress ?? "",
    destroy: () => tcp.destroy(),
    onGone: (listener) => {
      onGone = listener
    }
  })
  if (attempt === undefined) {
    tcp.on("error", () => {})
    tcp.once("close", () => onGone())
    return
  }
  const socket = acceptTls(tcp, {
    secureContext: attempt.credentials.secureContext,
    protocols,
    onSecure: (socket) => {
      socket.setNoDelay(true)
      socket.setKeepAlive(true, keepAliveInitialDelay)
      if (!requiresProtocol || socket.alpnProtocol) return onSecure(attempt, socket)
      attempt.failed(noProtocol(address, protocols))
      socket.destroy()
    },
    onFailure: (cause) => {
      attempt.failed(cause === undefined ? handshakeCut(address) : fromHandshake(cause, { matcher, address }))
      socket.destroy()
    }
  })
  // Of the TLS socket, which closes after it has told its error.
  socket.once("close", () => onGone())
}

/** Closes the listener, and the connections it has accepted. */
export const drain = (server: Server, { shutdown }: Acceptor.Acceptor<ServerContext>): Effect.Effect<void> =>
  Effect.zipRight(
    Effect.sync(() => server.close()),
    shutdown
  )

/** The settings of a server that are its acceptor's. */
export interface AcceptorSettings
  extends Omit<
    Acceptor.Options<ServerContext>,
    | "prepare"
    | "problems"
    | "handshakeTimeoutMillis"
    | "maxAgeMillis"
    | "graceMillis"
    | "firstRequestMillis"
    | "sendMillis"
  > {
  readonly handshakeTimeout: Duration.Duration
  readonly maxConnectionAge?: Duration.Duration | undefined
}

/** The acceptor of a server; it lives until the scope closes. */
export const makeAcceptor = (
  settings: AcceptorSettings,
  tls: TlsVersions,
  times: Pick<Acceptor.Options<ServerContext>, "graceMillis" | "firstRequestMillis" | "sendMillis">
): ReturnType<typeof Acceptor.make<ServerContext>> => {
  const contexts = new ServerContexts(settings.authorize, tls)
  const { handshakeTimeout, maxConnectionAge = Duration.infinity } = settings
  return Acceptor.make<ServerContext>({
    ...settings,
    ...times,
    prepare: (context) => contexts.make(context),
    problems: (context, time) => contexts.problemsOf(context, time),
    handshakeTimeoutMillis: Duration.toMillis(handshakeTimeout),
    maxAgeMillis: Duration.toMillis(maxConnectionAge)
  })
}
