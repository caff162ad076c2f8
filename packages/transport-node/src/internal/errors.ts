import { IdentityError } from "@agentweave/spiffe/IdentityError"
import { describe, type PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import { PeerVerificationError, type PeerVerificationReason } from "@agentweave/spiffe/PeerVerificationError"
import { ConnectionError, type ConnectionErrorReason, type Outcome } from "@agentweave/transport/TransportError"

/** The one table from raw error codes to typed errors. */

const connect: Readonly<Record<string, ConnectionErrorReason>> = {
  ECONNREFUSED: "Refused",
  // The system's limit for a TCP connection, or the one for an address of several.
  ETIMEDOUT: "Unreachable",
  EHOSTUNREACH: "Unreachable",
  ENETUNREACH: "Unreachable",
  EADDRNOTAVAIL: "Unreachable",
  EMFILE: "LocalFault",
  ENFILE: "LocalFault",
  ENOBUFS: "LocalFault",
  ENOMEM: "LocalFault",
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
  ERR_SSL_UNSUPPORTED_PROTOCOL: "ProtocolMismatch",
  ERR_SSL_NO_PROTOCOLS_AVAILABLE: "ProtocolMismatch",
  ERR_SSL_INAPPROPRIATE_FALLBACK: "ProtocolMismatch",
  ERR_SSL_NO_SHARED_CIPHER: "Negotiation",
  ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM: "Negotiation",
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

/**
 * OpenSSL's codes for an alert of the peer's. The part before `_ALERT_` differs between alerts and between versions of
 * OpenSSL: `SSLV3` for the oldest alerts in 3.0 (Node 20) is `SSL/TLS` in 3.5 (Node 22.23, 24.21, 26).
 */
const alertCode = /^ERR_SSL_(?:SSLV3|SSL\/TLS|TLSV1|TLSV13)_ALERT_(\w+)$/

/** The TLS alerts by which a peer refuses our certificate (RFC 8446 section 6.2, RFC 5246 section 7.2.2). */
const certificateAlerts: ReadonlySet<string> = new Set([
  "bad_certificate",
  "unsupported_certificate",
  "certificate_revoked",
  "certificate_expired",
  "certificate_unknown",
  "unknown_ca",
  "access_denied",
  "decrypt_error",
  "certificate_required"
])

/** The alerts by which a peer says that it speaks another version; all others end in `Negotiation`. */
const versionAlerts: ReadonlySet<string> = new Set(["protocol_version", "inappropriate_fallback"])

/** The error code of anything a socket or undici may report. */
export const codeOf = (cause: unknown): string => {
  const code = (cause as { readonly code?: unknown } | null | undefined)?.code
  return typeof code === "string" ? code : ""
}

/** OpenSSL's own text: process, `error:` number, library, function, reason, file, line. */
const openSslText = /^.*\berror:[0-9A-F]+:[^:]*:[^:]*:([^:]*):/is

/** An error's message, in one line: of OpenSSL's errors the reason alone. */
export const messageOf = (cause: unknown): string => {
  if (cause instanceof AggregateError && cause.message === "") return cause.errors.map(messageOf).join(", ")
  const text = cause instanceof Error ? cause.message : String(cause)
  return (openSslText.exec(text)?.[1] ?? text).replace(/\s+/g, " ").trim()
}

/** The alert in a socket's error, by its name in RFC 8446. */
const alertOf = (cause: unknown): string | undefined => alertCode.exec(codeOf(cause))?.[1]?.toLowerCase()

/** The certificate alert in a socket's error, if that is what it is. */
export const certificateAlert = (cause: unknown): string | undefined => {
  const alert = alertOf(cause)
  return alert !== undefined && certificateAlerts.has(alert) ? alert : undefined
}

export const localCertificateRefused = (alert: string, address: string): IdentityError =>
  new IdentityError({
    reason: "LocalCertificateRefused",
    description: `expected ${address} to accept our certificate, it sent a TLS alert`,
    alert
  })

/** Facts that go into the error of a handshake. */
export interface HandshakeContext {
  readonly matcher: PeerMatcher
  readonly address: string
  /** Of a host with several addresses, why each could not be reached. */
  readonly addresses?: ReadonlyArray<string> | undefined
}

/**
 * The code that says most of why no address of a host could be reached: any but that of an address that was silent, which
 * Node gives up before the connection's own limit.
 */
const codeOfAll = (cause: unknown): string => {
  if (!(cause instanceof AggregateError)) return codeOf(cause)
  const codes = cause.errors.map(codeOf)
  return codes.findLast((code) => code !== "ETIMEDOUT") ?? codeOf(cause)
}

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
): PeerVerificationError | IdentityError | ConnectionError => {
  const { address, addresses = [], matcher } = context
  const code = codeOfAll(cause)
  const alert = alertOf(cause)
  if (alert !== undefined && certificateAlerts.has(alert)) return localCertificateRefused(alert, address)
  if (verification[code] !== undefined) return chainRefused(cause, matcher)
  if (credentials.has(code) || code.startsWith("ERR_OSSL_PEM_")) {
    return new IdentityError({ reason: "Malformed", description: `our own credentials were refused by TLS (${code})` })
  }
  const fallback: ConnectionErrorReason = code.startsWith("ERR_SSL_") ? "Negotiation" : "HandshakeReset"
  return new ConnectionError({
    reason: alert !== undefined && versionAlerts.has(alert) ? "ProtocolMismatch" : (connect[code] ?? fallback),
    outcome: "NotSent",
    address,
    description: `expected a TLS connection, got: ${addresses.length > 1 ? addresses.join(", ") : messageOf(cause)}`,
    ...(code === "" ? undefined : { code }),
    cause
  })
}

/** The caller's body cannot be sent. */
export class RefusedBody extends Error {
  readonly code = "ERR_REFUSED_BODY"
}

/** The peer sent bytes before any request was written to it. */
export class UnaskedBytes extends Error {
  readonly code = "ERR_UNASKED_BYTES"
  constructor(bytes: number) {
    super(`${bytes} bytes before the first request was sent`)
  }
}

/** Messages of undici (7.30) for a response out of turn, and of a `101 Switching Protocols` that was not asked for. */
const isRefusedStatus = (cause: unknown): boolean =>
  cause instanceof Error &&
  codeOf(cause) === "UND_ERR_SOCKET" &&
  (cause.message === "bad response" || cause.message === "bad upgrade")

/**
 * Errors of undici (7.30) for a response it cannot read. Its parser's errors have a name and no code; where the response
 * states a length, any of them becomes a length mismatch.
 */
const isUnreadable = (cause: unknown): boolean =>
  cause instanceof UnaskedBytes ||
  (cause instanceof Error && cause.name === "HTTPParserError") ||
  isRefusedStatus(cause) ||
  codeOf(cause) === "UND_ERR_HEADERS_OVERFLOW" ||
  codeOf(cause) === "UND_ERR_RES_CONTENT_LENGTH_MISMATCH"

/** Why this side closes a connection that is in use. */
const ended = "the scope of its channel has ended, or the credentials it rested on have"

/** An error of an exchange on an established connection. */
export const fromExchange = (
  cause: unknown,
  options: {
    readonly address: string
    readonly outcome: Outcome
    readonly alert: string | undefined
    /** The peer has ended its side of the connection: a response that cannot be read is then one that is incomplete. */
    readonly peerEnded: boolean
    /** This side closed the connection, with the exchange still on it. */
    readonly closedHere: boolean
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
        ? `expected the rest of the response, the connection was lost: ${options.closedHere ? ended : messageOf(cause)}`
        : `expected a response, the connection was closed: ${options.closedHere ? ended : messageOf(cause)}`,
    ...(code === "" ? undefined : { code }),
    cause
  })
}
