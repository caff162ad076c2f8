import { EventEmitter } from "node:events"
import * as IdentityProvider from "@agentweave/spiffe/IdentityProvider"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type * as X509Context from "@agentweave/spiffe/X509Context"
import * as AuditLog from "@agentweave/transport/AuditLog"
import { Connector, type ExchangeError } from "@agentweave/transport/Connector"
import * as Dialer from "@agentweave/transport/Dialer"
import * as TransportConfig from "@agentweave/transport/TransportConfig"
import { Effect, Layer } from "effect"
import { SocketWire } from "../../src/internal/client/socketWire.js"
import { failure, host } from "./fixture.js"

/** A client's wire over something that answers as a socket does where a test says so. */
const wireOver = (answers: object): SocketWire => {
  const socket = new EventEmitter()
  Object.assign(
    socket,
    {
      errored: null,
      closed: false,
      destroy: () => socket.emit("close"),
      getCipher: () => ({}),
      getProtocol: () => "TLSv1.3",
      getSharedSigalgs: () => []
    },
    answers
  )
  return new SocketWire({ socket: socket as never, host, port: 0, oneSided: false })
}

/** The refusal of a peer at the other end of such a socket, by the connector over it. */
export const refusalOver = (
  answers: object,
  identity: X509Context.X509Context,
  peer: SpiffeId.SpiffeId
): Effect.Effect<ExchangeError> => {
  const dialer = Effect.succeed({ dial: () => Effect.sync(() => wireOver(answers)) })
  const services = Dialer.layer(dialer).pipe(
    Layer.provide([IdentityProvider.layerStatic(identity), AuditLog.layerMemory([])])
  )
  const matcher = PeerMatcher.exactly(peer)
  const options = { matcher, host, port: 1, config: TransportConfig.defaults, onClose: () => {} }
  const attempt = Effect.flatMap(Connector, (connector) => connector.connect(options))
  return Effect.scoped(Effect.provide(failure(attempt), services))
}
