/**
 * Verified TLS connections for Node: undici's HTTP/1.1 over our own `tls.connect`.
 *
 * @since 0.1.0
 */
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { AuditLog } from "@agentweave/transport/AuditLog"
import type { Connector } from "@agentweave/transport/Connector"
import type * as Layer from "effect/Layer"
import { layerMutual } from "./internal/client/connector.js"

/**
 * Connections for `SecureChannel` and `ConnectionPool`: mutual TLS, full handshakes only, the peer's SVID verified and
 * its ID matched before a byte of a request is written; a server that does not ask for our certificate is refused, since it
 * serves clients without one. At most 32 handshakes of the last 250 milliseconds are under way at a
 * time, so that connections lost together do not come back all at once; the others wait for their turn, within
 * `connectTimeout`. A connection is drained and closed when a bundle it rests on is
 * withdrawn, and at the latest at the earliest notAfter of the certificates on it.
 *
 * When the scope of the layer ends, no connection is opened any more (`ScopeClosedError`, reason `Connector`), and all
 * connections it has opened are closed, whoever uses them. So the layer is provided around the whole use of a channel or a
 * pool, and not around the effect that makes it.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SecureChannel } from "@agentweave/transport"
 * import { NodeConnector } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const billing = yield* SecureChannel.make({ peer: "spiffe://example.org/billing", baseUrl: "https://billing.internal" })
 *   const response = yield* billing.get("/invoices/42")
 *   return yield* response.json
 * }).pipe(Effect.scoped, Effect.provide(NodeConnector.layer))
 * ```
 */
export const layer: Layer.Layer<Connector, never, IdentityProvider | AuditLog> = layerMutual
