import type { Socket } from "node:net"
import { type SecureContext, TLSSocket } from "node:tls"

/** The end of a server's handshake: `onSecure` or `onFailure` is called, once. */
export interface AcceptOptions {
  readonly secureContext: SecureContext
  /** The application protocols this server speaks (ALPN, RFC 7301); none: it looks at none. */
  readonly protocols: ReadonlyArray<string>
  /** The handshake has ended. The client's chain is not verified yet: `askOpenSsl` and the gate are to do that. */
  readonly onSecure: (socket: TLSSocket) => void
  /** The handshake failed with an error, or the connection ended without one. */
  readonly onFailure: (cause: Error | undefined) => void
}

/**
 * The server's side of TLS over an accepted TCP connection, with a request for the client's certificate. Node's own
 * `tls.Server` is not used: some of its versions (24.21.0, 26.8) drop the client's chain before anybody can read it.
 */
export const acceptTls = (tcp: Socket, { onFailure, onSecure, protocols, secureContext }: AcceptOptions): TLSSocket => {
  // A client that ends the connection in its handshake has ended it for both sides.
  tcp.allowHalfOpen = false
  const socket = new TLSSocket(tcp, {
    isServer: true,
    secureContext,
    requestCert: true,
    rejectUnauthorized: true,
    ...(protocols.length === 0 ? undefined : { ALPNProtocols: [...protocols] })
  })
  let settled = false
  const fail = (cause?: Error) => {
    if (settled) return
    settled = true
    onFailure(cause)
  }
  socket.once("secure", () => {
    if (settled) return
    settled = true
    // As Node's own servers say of their sockets (Node 20 to 26): an HTTP/2 session waits for it.
    Object.assign(socket, { secureConnecting: false })
    onSecure(socket)
  })
  // The listener of `error` stays for the socket's life: an error without one would end the process.
  socket.on("error", fail)
  socket.once("close", () => fail())
  // Errors of TLS after the handshake are an `error` on the sockets of Node's own servers only (Node 20 to 26).
  socket.on("_tlsError", (cause: Error) => socket.destroy(cause))
  return socket
}

/** The part of Node's TLS handle that says how OpenSSL judged the peer's chain (Node 20 to 26). */
interface TlsHandle {
  readonly verifyError?: () => Error | null
}

/**
 * Asks OpenSSL for its verdict on the client's chain, after the handshake, and keeps it on the socket as Node's own servers
 * do (`authorized`). OpenSSL lets every chain pass the handshake, and no public call of Node's gives a server the verdict:
 * the handle is asked. Returns the error, with its `code`, where OpenSSL refuses the chain. Throws where there is nothing to
 * ask.
 */
export const askOpenSsl = (socket: TLSSocket): Error | undefined => {
  const { _handle: handle } = socket as { readonly _handle?: TlsHandle | null }
  if (typeof handle?.verifyError !== "function") throw new Error("this version of Node gives no verdict of OpenSSL's")
  const refusal = handle.verifyError()
  socket.authorized = refusal === null
  return refusal ?? undefined
}
