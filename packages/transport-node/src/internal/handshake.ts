import { isIP } from "node:net"
import {
  type DetailedPeerCertificate,
  type PeerCertificate,
  type SecureContext,
  TLSSocket,
  connect as tlsConnect
} from "node:tls"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { PeerVerificationError, type PeerVerificationReason } from "@agentweave/spiffe/PeerVerificationError"
import type { PeerVerifier, Purpose, VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import type { X509BundleSet } from "@agentweave/spiffe/X509BundleSet"
import type { ConnectionError, TimeoutError } from "@agentweave/transport/TransportError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { linkedChain, type Presented, wholeChain } from "./chain.js"
import { chainRefused, fromHandshake, handshakeCut, tooSlow } from "./errors.js"
import type { Sweeper, Timed } from "./sweeper.js"

/** What the gate needs, on either side. */
export interface Judge {
  readonly verifier: PeerVerifier
  readonly bundles: X509BundleSet
  readonly matcher: PeerMatcher.PeerMatcher
  readonly purpose: Purpose
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /**
   * Accepts a server that does not ask for our certificate: for protocols that want it so. Default `false`; of no effect
   * on a server.
   */
  readonly oneSided?: boolean
  /** Asks OpenSSL about the peer's chain, where Node has not done so: on a server. Returns the error of a refusal. */
  readonly askOpenSsl?: (socket: TLSSocket) => Error | undefined
}

/**
 * Whether the server asked the client that this socket is for its certificate. OpenSSL (Node 20 to 26, TLS 1.2 and 1.3)
 * knows signature algorithms of the server's only from its request for a certificate (RFC 8446 section 4.3.2, RFC 5246
 * section 7.4.4).
 */
const isAskedForCertificate = (socket: TLSSocket): boolean => socket.getSharedSigalgs().length > 0

/** Refusals that another certificate between leaf and anchor could have prevented. */
const ofThePath: ReadonlySet<PeerVerificationReason> = new Set([
  "UntrustedChain",
  "InvalidChain",
  "Expired",
  "NotYetValid"
])

/**
 * Judges a socket whose TLS handshake has just ended: an answer, never a throw, because a throw in this callback would
 * end the process.
 *
 * A leaf that passed before is recognized, and the rest of its chain is not asked for: Node takes twenty times as long to
 * describe a chain as a leaf.
 */
export const judge = (socket: TLSSocket, by: Judge): Either.Either<VerifiedPeer, PeerVerificationError> => {
  const refusal = (reason: PeerVerificationError["reason"], description: string, cause?: unknown) =>
    new PeerVerificationError({
      expectedId: PeerMatcher.describe(by.matcher),
      actualId: null,
      reason,
      description,
      ...(cause === undefined ? undefined : { cause })
    })
  const verify = (): Either.Either<VerifiedPeer, PeerVerificationError> => {
    if (socket.isSessionReused()) {
      return Either.left(refusal("SessionResumed", "expected a full handshake, the session was resumed"))
    }
    const refused = by.askOpenSsl?.(socket)
    if (refused !== undefined) return Either.left(chainRefused(refused, by.matcher))
    if (!socket.authorized) {
      return Either.left(refusal("UntrustedChain", `expected a chain that TLS accepts: ${socket.authorizationError}`))
    }
    const leaf = (socket.getPeerCertificate() as Presented).raw
    if (leaf === undefined) {
      return Either.left(refusal("NoCertificate", "expected a certificate, the peer presented none"))
    }
    const { bundles, matcher, purpose, verifier } = by
    if (purpose === "ServerAuth" && by.oneSided !== true && !isAskedForCertificate(socket)) {
      return Either.left(
        refusal("NotMutual", "expected to be asked for our certificate, the server serves clients without one")
      )
    }
    const input = { bundles, matcher, purpose, now: by.now() }
    const recognized = verifier.recognize({ ...input, leaf })
    if (recognized !== undefined) return recognized
    const linked = verifier.verify({ ...input, chain: linkedChain(socket) })
    return Either.isLeft(linked) && ofThePath.has(linked.left.reason)
      ? verifier.verify({ ...input, chain: wholeChain(socket) })
      : linked
  }
  return Either.flatMap(
    Either.try({
      try: verify,
      catch: (cause) => refusal("VerifierFault", "expected the verifier to answer, it threw", cause)
    }),
    (answer) => answer
  )
}

export type HandshakeError = PeerVerificationError | IdentityError | ConnectionError | TimeoutError

export interface HandshakeOptions<A> extends Judge {
  readonly host: string
  readonly port: number
  readonly address: string
  /** How long TCP and TLS may take, in milliseconds, and when that is over, milliseconds since the epoch. */
  readonly timeoutMillis: number
  readonly deadline: number
  readonly sweeper: Sweeper
  readonly secureContext: SecureContext
  /** Takes hold of the socket as soon as there is one: whoever fails or is interrupted later destroys it. */
  readonly onSocket: (socket: TLSSocket) => void
  /** What the handshake succeeds with. */
  readonly onVerified: (peer: VerifiedPeer, socket: TLSSocket) => A
}

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
 * TCP, TLS with both certificates, the gate. Succeeds with the verified peer, exactly once, and only then may the socket be
 * used; every refusal destroys it. No session is ever offered or kept.
 */
export const handshake = <A>(options: HandshakeOptions<A>): Effect.Effect<A, HandshakeError> =>
  Effect.async<A, HandshakeError>((resume) => {
    const socket = tlsConnect({
      host: options.host,
      port: options.port,
      secureContext: options.secureContext,
      // From the address we were told to call, never from a request's `Host` header. SNI takes no IP address.
      servername: isIP(options.host) === 0 ? options.host : "",
      rejectUnauthorized: true,
      // SPIFFE names no hosts, and this callback is skipped for a resumed session: the gate decides who the peer is.
      checkServerIdentity: () => undefined,
      ALPNProtocols: ["http/1.1"]
    })
    options.onSocket(socket)
    describeNothing(socket)
    socket.setNoDelay(true)
    let settled = false
    /** From here on the socket holds on to nothing of its handshake: it may live for long. */
    const detach = () => {
      settled = true
      options.sweeper.remove(limit)
      socket.off("close", onClose)
      socket.off("secureConnect", onSecure)
      socket.on("error", ignore)
      socket.off("error", onError)
    }
    const finish = (result: Effect.Effect<A, HandshakeError>) => {
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
      const judged = judge(socket, options)
      if (Either.isLeft(judged)) refuse(judged.left)
      else finish(Effect.succeed(options.onVerified(judged.right, socket)))
    }
    const onClose = () => refuse(handshakeCut(options.address))
    const onError = (cause: Error) => {
      refuse(fromHandshake(cause, options))
    }
    const limit: Timed = {
      deadline: options.deadline,
      onDeadline: () => refuse(tooSlow(options))
    }
    options.sweeper.add(limit)
    socket.on("error", onError)
    socket.once("secureConnect", onSecure)
    socket.once("close", onClose)
    return Effect.sync(() => {
      detach()
      socket.destroy()
    })
  })
