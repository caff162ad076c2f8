import { isIP } from "node:net"
import { type DetailedPeerCertificate, type PeerCertificate, TLSSocket, connect as tlsConnect } from "node:tls"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { PeerVerificationError } from "@agentweave/spiffe/PeerVerificationError"
import type { ConnectionError, TimeoutError } from "@agentweave/transport/TransportError"
import type { DialOptions } from "@agentweave/transport/Wire"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { fromHandshake, handshakeCut, messageOf } from "../errors.js"
import type { SecureContexts } from "../tls/secureContext.js"

/** After how long without a byte the system begins to ask whether the peer's host is there, in milliseconds. */
export const keepAliveInitialDelay = 30_000

type HandshakeError = PeerVerificationError | IdentityError | ConnectionError | TimeoutError

export interface DialSettings<W> {
  readonly contexts: SecureContexts
  /** Makes the wire of a socket whose handshake has ended. */
  readonly wireOf: (socket: TLSSocket, options: DialOptions) => W
}

/**
 * How long one address of several may take to answer before the next one is tried, in milliseconds: Node gives an address up
 * for good then. Its default, a quarter of a second, is less than a far peer or one lost packet takes.
 */
const attemptMillis = (connectTimeout: Duration.Duration): number =>
  Math.min(Math.max(10, Math.ceil(Duration.toMillis(connectTimeout) / 4)), 60_000)

/** Stays for the socket's life: an error without a listener would end the process. */
const ignore = () => {}

/**
 * Node (20 to 24) describes the whole chain for `checkServerIdentity`, whether that looks at it or not: half of what a
 * handshake costs a client. Ours does not look, so until the gate asks there is nothing to describe.
 */
const describeNothing = (socket: TLSSocket): void => {
  socket.getPeerCertificate = () => ({}) as PeerCertificate & DetailedPeerCertificate
}

/** Assigned and not deleted: an object that lost a property is slow and large from then on. */
const describeAgain = (socket: TLSSocket): void => {
  socket.getPeerCertificate = TLSSocket.prototype.getPeerCertificate
}

/**
 * TCP, and TLS with both certificates. Succeeds with the wire, exactly once; every failure and interruption destroys the
 * socket. No session is ever offered or kept.
 */
export const dial = <W>(
  options: DialOptions,
  { contexts, wireOf }: DialSettings<W>
): Effect.Effect<W, HandshakeError> => {
  const { address, config, hold, host, identity, matcher, port, protocols = [], trustDomains } = options
  const secureContext = contexts.get(identity, trustDomains, config)
  if (Either.isLeft(secureContext)) return Effect.fail(secureContext.left)
  return Effect.async<W, HandshakeError>((resume) => {
    const socket = tlsConnect({
      host,
      port,
      secureContext: secureContext.right,
      // From the address we were told to call, never from a request's `Host` header. SNI takes no IP address.
      servername: isIP(host) === 0 ? host : "",
      rejectUnauthorized: true,
      // SPIFFE names no hosts, and this callback is skipped for a resumed session: the gate decides who the peer is.
      checkServerIdentity: () => undefined,
      ...(protocols.length === 0 ? undefined : { ALPNProtocols: [...protocols] }),
      // Options of the TCP connection that the types of `tls.connect` lack.
      ...{ autoSelectFamily: true, autoSelectFamilyAttemptTimeout: attemptMillis(config.connectTimeout) }
    })
    /** Addresses of the host that were given up. */
    const failed: Array<string> = []
    hold(
      () => socket.destroy(),
      () => (failed.length === 0 ? undefined : failed.join(", "))
    )
    describeNothing(socket)
    socket.setNoDelay(true)
    let settled = false
    /** From here on the socket holds on to nothing of its handshake: it may live for long. */
    const detach = () => {
      settled = true
      socket.off("close", onClose)
      socket.off("secureConnect", onSecure)
      socket.on("error", ignore)
      socket.off("error", onError)
      socket.off("connectionAttemptFailed", onAddressFailed)
      socket.off("connectionAttemptTimeout", onAddressSilent)
    }
    const finish = (result: Effect.Effect<W, HandshakeError>) => {
      if (settled) return
      detach()
      resume(result)
    }
    const refuse = (error: HandshakeError) => {
      socket.destroy()
      finish(Effect.fail(error))
    }
    const onSecure = () => {
      describeAgain(socket)
      socket.setKeepAlive(true, keepAliveInitialDelay)
      finish(Effect.succeed(wireOf(socket, options)))
    }
    const onClose = () => refuse(handshakeCut(address))
    const onError = (cause: Error) => refuse(fromHandshake(cause, { matcher, address, addresses: failed }))
    const onAddressFailed = (_ip: string, _port: number, _family: number, cause: Error) => {
      failed.push(messageOf(cause))
    }
    const onAddressSilent = (ip: string, port: number) => {
      failed.push(`no answer of ${ip}:${port} within ${attemptMillis(config.connectTimeout)} ms`)
    }
    socket.on("connectionAttemptFailed", onAddressFailed)
    socket.on("connectionAttemptTimeout", onAddressSilent)
    socket.on("error", onError)
    socket.once("secureConnect", onSecure)
    socket.once("close", onClose)
    return Effect.sync(() => {
      detach()
      socket.destroy()
    })
  })
}
