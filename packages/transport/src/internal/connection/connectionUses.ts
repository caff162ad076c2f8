import type { PeerVerifier } from "@agentweave/spiffe/PeerVerifier"
import * as Effect from "effect/Effect"
import type { ConnectOptions } from "../../Connector.js"
import { ConnectionError, type TransportError } from "../../TransportError.js"
import type { DialOptions, HttpWire, StreamWire, Wire } from "../../Wire.js"
import { ClientConnection } from "./clientConnection.js"
import { ClientStream } from "./clientStream.js"
import type { Established, Owner, SupervisedConnection } from "./supervisedConnection.js"

/** How a transport reaches peers. */
export interface Dial {
  readonly dial: (options: DialOptions) => Effect.Effect<HttpWire, TransportError>
  readonly dialStream?: ((options: DialOptions) => Effect.Effect<StreamWire, TransportError>) | undefined
  /** Judges peers; absent: the gate. */
  readonly verifier?: PeerVerifier | undefined
  /** Judges our own SVID; absent: the gate. */
  readonly ownVerifier?: PeerVerifier | undefined
}

/** A use of connections: for requests, or for bytes as they are. */
export interface ConnectionUse<W extends Wire, C extends SupervisedConnection> {
  readonly dial: (options: DialOptions) => Effect.Effect<W, TransportError>
  establish(owner: Owner, established: Established & { readonly wire: W }, options: ConnectOptions): C
  /** Ends the connection with its scope. */
  close(connection: C, onGone: () => void): void
  /** Why the protocol that a server agreed to is refused. */
  disagreement(wire: W, options: ConnectOptions, address: string): ConnectionError | undefined
}

const noProtocol = (address: string, expected: ReadonlyArray<string>, actual: string | undefined): ConnectionError =>
  new ConnectionError({
    reason: "Negotiation",
    outcome: "NotSent",
    address,
    description: `expected the server to agree to ${expected.join(" or ")} (ALPN), it agreed to ${actual ?? "none"}`
  })

export const forRequests = (dial: Dial["dial"]): ConnectionUse<HttpWire, ClientConnection> => ({
  dial: (options) => dial({ ...options, protocols: ["http/1.1"] }),
  establish: (owner, established, { config, onClose }) =>
    new ClientConnection(owner, { ...established, config, onClose }),
  close: (connection, onGone) => connection.cut("Shutdown", onGone),
  disagreement: () => undefined
})

const noStreams = ({ address }: DialOptions): Effect.Effect<never, ConnectionError> =>
  Effect.fail(
    new ConnectionError({
      reason: "LocalFault",
      outcome: "NotSent",
      address,
      description: "expected a transport that carries streams of bytes, it carries requests only"
    })
  )

export const forBytes = (dialStream: Dial["dialStream"]): ConnectionUse<StreamWire, ClientStream> => ({
  dial: dialStream ?? noStreams,
  establish: (owner, established, { onClose }) => new ClientStream(owner, { ...established, onClose }),
  close: (connection, onGone) => connection.finish(onGone),
  disagreement: ({ tls }, { protocols = [] }, address) =>
    // A server that names no protocol speaks this one.
    protocols.length === 0 || protocols.includes(tls.protocol ?? "http/1.1")
      ? undefined
      : noProtocol(address, protocols, tls.protocol)
})
