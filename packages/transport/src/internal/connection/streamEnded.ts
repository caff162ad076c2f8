import type { CloseReason } from "../../AuditEvent.js"
import { ConnectionError } from "../../TransportError.js"

const endings: { readonly [Reason in CloseReason]?: string } = {
  Age: "it has reached the greatest age of a connection",
  Expiry: "a certificate on it expires",
  Withdrawn: "our own identity was withdrawn",
  Distrust: "our bundle no longer holds the authority of the peer's certificate",
  Shutdown: "the scope it was supervised in has ended"
}

const ended = (address: string, reason: CloseReason): ConnectionError =>
  new ConnectionError({
    reason: "Lost",
    outcome: "Unknown",
    address,
    description:
      endings[reason] === undefined
        ? `expected the stream to end in order, the connection was lost (${reason})`
        : `expected the stream to end in order, this side ended the connection: ${endings[reason]} (${reason})`
  })

/**
 * Why a stream of bytes did not end in order, for those that use it; `undefined` where it did: the peer ended it, or this side
 * was finishing it.
 */
export const lossOf = (address: string, reason: CloseReason, isFinishing: boolean): ConnectionError | undefined =>
  reason === "PeerClosed" || isFinishing ? undefined : ended(address, reason)
