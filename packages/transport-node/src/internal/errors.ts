import { IdentityError } from "@agentweave/spiffe/IdentityError"
import { describe, type PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import { PeerVerificationError, type PeerVerificationReason } from "@agentweave/spiffe/PeerVerificationError"
import {
  ConnectionError,
  type ConnectionErrorReason,
  type Outcome,
  TimeoutError
} from "@agentweave/transport/TransportError"
import * as Duration from "effect/Duration"

/** The one table from raw error codes to typed errors. */

const connect: Readonly<Record<string, ConnectionErrorReason>> = {
  ECONNREFUSED: "Refused",
  EHOSTUNREACH: "Unreachable",
  ENETUNREACH: "Unreachable",
  EADDRNOTAVAIL: "Unreachable",
  ENOTFOUND: "Dns",
  EAI_AGAIN: "Dns",
  EAI_FAIL: "Dns",
  EPIPE: "HandshakeReset",
  ECONNRESET: "HandshakeReset",
  ECONNABORTED: "HandshakeReset",
  ERR_SSL_WRONG_VERSION_NUMBER: "NotTls",
  ERR_SSL_PACKET_LENGTH_TOO_LONG: "NotTls",
  ERR_SSL_HTTP_REQUEST: "NotTls",
  ERR_SSL_UNEXPECTED_MESSAGE: "NotTls",
  ERR_SSL_BAD_RECORD_TYPE: "NotTls",
  ERR_SSL_RECORD_LAYER_FAILURE: "NotTls",
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: "ProtocolMismatch",
  ERR_SSL_UNSUPPORTED_PROTOCOL: "ProtocolMismatch",
  ERR_SSL_NO_PROTOCOLS_AVAILABLE: "ProtocolMismatch",
  ERR_SSL_INAPPROPRIATE_FALLBACK: "ProtocolMismatch",
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: "Negotiation",
  ERR_SSL_NO_SHARED_CIPHER: "Negotiation",
  ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM: "Negotiation",
  ERR_SSL_TLSV1_ALERT_INSUFFICIENT_SECURITY: "Negotiation",
  ERR_SSL_EE_KEY_TOO_SMALL: "Negotiation",
  ERR_SSL_DH_KEY_TOO_SMALL: "Negotiation",
  ERR_SSL_WRONG_SIGNATURE_TYPE: "Negotiation"
}

const verification: Readonly<Record<string, PeerVerificationReason>> = {
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "UntrustedChain",
  UNABLE_TO_GET_ISSUER_CERT: "UntrustedChain",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "UntrustedChain",
  DEPTH_ZERO_SELF_SIGNED_CERT: "UntrustedChain",
  SELF_SIGNED_CERT_IN_CHAIN: "UntrustedChain",
  CERT_SIGNATURE_FAILURE: "UntrustedChain",
  CERT_UNTRUSTED: "UntrustedChain",
  CERT_HAS_EXPIRED: "Expired",
  CERT_NOT_YET_VALID: "NotYetValid",
  INVALID_PURPOSE: "InvalidChain",
  INVALID_CA: "InvalidChain",
  PATH_LENGTH_EXCEEDED: "InvalidChain",
  CERT_CHAIN_TOO_LONG: "InvalidChain",
  CERT_REJECTED: "InvalidChain",
  UNSPECIFIED: "InvalidChain",
  ERR_SSL_CERTIFICATE_VERIFY_FAILED: "InvalidChain",
  UNABLE_TO_GET_CERT: "NoCertificate",
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: "NoCertificate"
}

const credentials: ReadonlySet<string> = new Set(["ERR_OSSL_X509_KEY_VALUES_MISMATCH", "ERR_SSL_CA_MD_TOO_WEAK"])

/** The TLS alerts by which a peer refuses our certificate (RFC 8446 section 6.2, RFC 5246 section 7.2.2). */
const certificateAlerts: Readonly<Record<string, string>> = {
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: "bad_certificate",
  ERR_SSL_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE: "unsupported_certificate",
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED: "certificate_revoked",
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED: "certificate_expired",
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN: "certificate_unknown",
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: "unknown_ca",
  ERR_SSL_TLSV1_ALERT_ACCESS_DENIED: "access_denied",
  ERR_SSL_TLSV1_ALERT_DECRYPT_ERROR: "decrypt_error",
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: "certificate_required"
}

/** The error code of anything a socket or undici may report. */
export const codeOf = (cause: unknown): string => {
  const code = (cause as { readonly code?: unknown } | null | undefined)?.code
  return typeof code === "string" ? code : ""
}

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/** The certificate alert in a socket's error, if that is what it is. */
export const certificateAlert = (cause: unknown): string | undefined => certificateAlerts[codeOf(cause)]

export const localCertificateRefused = (alert: string, address: string): IdentityError =>
  new IdentityError({
    reason: "LocalCertificateRefused",
    description: `expected ${address} to accept our certificate, it sent a TLS alert`,
    alert
  })

/** What an error in a handshake is told with. */
export interface HandshakeContext {
  readonly matcher: PeerMatcher
  readonly address: string
  /** How long TCP and TLS may take, in milliseconds. */
  readonly timeoutMillis: number
}

/** The handshake took longer than it may. */
export const tooSlow = ({ address, matcher, timeoutMillis }: HandshakeContext): TimeoutError =>
  new TimeoutError({
    phase: "Connect",
    outcome: "NotSent",
    limit: Duration.millis(timeoutMillis),
    target: `${describe(matcher)} at ${address}`
  })

/** The connection ended before the handshake did, without an error. */
export const handshakeCut = (address: string): ConnectionError =>
  new ConnectionError({
    reason: "HandshakeReset",
    outcome: "NotSent",
    address,
    description: "expected a TLS handshake, the peer closed the connection"
  })

/** OpenSSL refuses the peer's chain. */
export const chainRefused = (cause: unknown, matcher: PeerMatcher): PeerVerificationError => {
  const code = codeOf(cause)
  return new PeerVerificationError({
    expectedId: describe(matcher),
    actualId: null,
    reason: verification[code] ?? "InvalidChain",
    description: `TLS refused the peer's chain: ${messageOf(cause)} (${code})`,
    cause
  })
}

/** An error before the handshake ended: not one byte of a request was written. */
export const fromHandshake = (
  cause: unknown,
  context: HandshakeContext
): PeerVerificationError | IdentityError | ConnectionError | TimeoutError => {
  const { address, matcher } = context
  const code = codeOf(cause)
  // The system's limit for a TCP connection.
  if (code === "ETIMEDOUT") return tooSlow(context)
  const alert = certificateAlerts[code]
  if (alert !== undefined) return localCertificateRefused(alert, address)
  if (verification[code] !== undefined) return chainRefused(cause, matcher)
  if (credentials.has(code) || code.startsWith("ERR_OSSL_PEM_")) {
    return new IdentityError({ reason: "Malformed", description: `our own credentials were refused by TLS (${code})` })
  }
  const fallback: ConnectionErrorReason = code.startsWith("ERR_SSL_") ? "Negotiation" : "HandshakeReset"
  return new ConnectionError({
    reason: connect[code] ?? fallback,
    outcome: "NotSent",
    address,
    description: `expected a TLS connection, got: ${messageOf(cause)}`,
    ...(code === "" ? undefined : { code }),
    cause
  })
}

/** The peer sent bytes before any request was written to it. */
export class UnaskedBytes extends Error {
  readonly code = "ERR_UNASKED_BYTES"
  constructor(bytes: number) {
    super(`${bytes} bytes before the first request was sent`)
  }
}

/**
 * What undici (7.30) says of a response it cannot read. Its parser's errors have a name and no code; where the response
 * states a length, any of them becomes a length mismatch.
 */
const isUnreadable = (cause: unknown): boolean =>
  cause instanceof UnaskedBytes ||
  (cause instanceof Error && cause.name === "HTTPParserError") ||
  codeOf(cause) === "UND_ERR_HEADERS_OVERFLOW" ||
  codeOf(cause) === "UND_ERR_RES_CONTENT_LENGTH_MISMATCH"

/** An error of an exchange on an established connection. */
export const fromExchange = (
  cause: unknown,
  options: {
    readonly address: string
    readonly outcome: Outcome
    readonly alert: string | undefined
    /** What can not be read after the peer's end is what is not there. */
    readonly peerEnded: boolean
    readonly responseStarted: boolean
  }
): IdentityError | ConnectionError => {
  if (options.alert !== undefined && !options.responseStarted) {
    return localCertificateRefused(options.alert, options.address)
  }
  const code = codeOf(cause)
  const malformed = isUnreadable(cause) && !options.peerEnded
  return new ConnectionError({
    reason: malformed ? "Malformed" : options.responseStarted ? "Lost" : "Closed",
    outcome: options.outcome,
    address: options.address,
    description: malformed
      ? `expected a valid HTTP/1.1 response, got: ${messageOf(cause)}`
      : options.responseStarted
        ? `expected the rest of the response, the connection was lost: ${messageOf(cause)}`
        : `expected a response, the connection was closed: ${messageOf(cause)}`,
    ...(code === "" ? undefined : { code }),
    cause
  })
}
