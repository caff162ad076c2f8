/** The answer to a client whose certificate is good and whose SPIFFE ID is not authorised. */
import type { TLSSocket } from "node:tls"
import { refusalHeader } from "@agentweave/transport/Wire"

const refusal = "This server does not authorise the SPIFFE ID of your certificate.\n"

const forbidden =
  `HTTP/1.1 403 Forbidden\r\nconnection: close\r\n${refusalHeader}: UnexpectedPeer\r\n` +
  `content-type: text/plain\r\ncontent-length: ${refusal.length}\r\n\r\n${refusal}`

/** The most bytes of a refused client that are read, so that no reset swallows its answer. */
const maxDiscarded = 64 * 1024

/**
 * Answers the first bytes of a client that is not authorised, which nobody parses, with why it is not served, and ends the
 * connection in order. The acceptor cuts it after a second.
 */
export const answerForbidden = (socket: TLSSocket): void => {
  let discarded = 0
  socket.on("data", (chunk: Buffer) => {
    if (discarded === 0) socket.end(forbidden)
    discarded += chunk.length
    if (discarded > maxDiscarded) socket.destroy()
  })
}
