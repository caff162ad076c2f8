import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { AuditLog } from "@agentweave/transport/AuditLog"
import type { Connector } from "@agentweave/transport/Connector"
import * as Dialer from "@agentweave/transport/Dialer"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { TlsStreamWire } from "../socket/streamWire.js"
import { SecureContexts } from "../tls/secureContext.js"
import { clientHandshake } from "../tls/tlsWire.js"
import { dial } from "./dial.js"
import { SocketWire } from "./socketWire.js"

/** One TLS context an identity, a set of trust domains and a range of versions. */
const dialer = (
  /** Whether servers are accepted that do not ask for our certificate. */
  oneSided: boolean
): Dialer.Dialer => {
  const contexts = new SecureContexts()
  return {
    dial: (options) =>
      dial(options, {
        contexts,
        wireOf: (socket, { host, port }) => new SocketWire({ socket, host, port, oneSided })
      }),
    dialStream: (options) =>
      dial(options, { contexts, wireOf: (socket) => new TlsStreamWire(socket, clientHandshake(socket)) })
  }
}

/** Connections to servers that ask for our certificate. */
export const layerMutual: Layer.Layer<Connector, never, IdentityProvider | AuditLog> = Dialer.layer(
  Effect.sync(() => dialer(false))
)

/**
 * Connections to SPIFFE bundle endpoints (SPIFFE_Federation section 5.2.2), which prove who they are to clients they do not
 * know. No module that users see exports it.
 */
export const layerOneSided: Layer.Layer<Connector, never, IdentityProvider | AuditLog> = Dialer.layer(
  Effect.sync(() => dialer(true))
)
