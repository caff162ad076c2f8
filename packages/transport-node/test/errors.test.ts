import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { describe, expect, it } from "@effect/vitest"
import { certificateAlert, fromExchange, fromHandshake } from "../src/internal/errors.js"

const context = { matcher: PeerMatcher.oneOf([]), address: "192.0.2.1:443" }

/** An alert that is as old as SSL 3 has two names: OpenSSL renamed it. */
const oldest = (alert: string): readonly [alert: string, codes: ReadonlyArray<string>] => [
  alert,
  [`SSLV3_ALERT_${alert.toUpperCase()}`, `SSL/TLS_ALERT_${alert.toUpperCase()}`]
]

describe("a peer refuses our certificate by an alert", () => {
  // The codes of OpenSSL 3.0 (Node 20) and of 3.5 (Node 22.23, 24.21 and 26).
  const alerts: ReadonlyArray<readonly [alert: string, codes: ReadonlyArray<string>]> = [
    ...["bad_certificate", "unsupported_certificate", "certificate_revoked", "certificate_expired"].map(oldest),
    oldest("certificate_unknown"),
    ["unknown_ca", ["TLSV1_ALERT_UNKNOWN_CA"]],
    ["access_denied", ["TLSV1_ALERT_ACCESS_DENIED"]],
    ["decrypt_error", ["TLSV1_ALERT_DECRYPT_ERROR"]],
    ["certificate_required", ["TLSV13_ALERT_CERTIFICATE_REQUIRED"]]
  ]
  for (const [alert, codes] of alerts) {
    for (const code of codes) {
      it(`and OpenSSL calls it ${code}: LocalCertificateRefused, ${alert}, in a handshake and in an exchange`, () => {
        const cause = Object.assign(new Error("no"), { code: `ERR_SSL_${code}` })
        const refused = { _tag: "IdentityError", reason: "LocalCertificateRefused", alert, isRetryable: false }
        expect(fromHandshake(cause, context)).toMatchObject(refused)
        const exchange = {
          address: context.address,
          outcome: "Unknown",
          peerEnded: true,
          closedHere: false,
          responseStarted: false
        } as const
        expect(fromExchange(cause, { ...exchange, alert: certificateAlert(cause) })).toMatchObject(refused)
      })
    }
  }
})

describe("what a system says of a connection that cannot be made", () => {
  const codes: ReadonlyArray<readonly [code: string, tag: string, reason: string]> = [
    ["ECONNREFUSED", "ConnectionError", "Refused"],
    ["EHOSTUNREACH", "ConnectionError", "Unreachable"],
    ["ENETUNREACH", "ConnectionError", "Unreachable"],
    ["ENOTFOUND", "ConnectionError", "Dns"],
    ["EAI_AGAIN", "ConnectionError", "Dns"],
    ["ECONNRESET", "ConnectionError", "HandshakeReset"],
    ["EPIPE", "ConnectionError", "HandshakeReset"],
    ["ETIMEDOUT", "ConnectionError", "Unreachable"],
    ["EMFILE", "ConnectionError", "LocalFault"],
    ["ENFILE", "ConnectionError", "LocalFault"],
    ["ENOBUFS", "ConnectionError", "LocalFault"],
    ["ENOMEM", "ConnectionError", "LocalFault"],
    ["ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION", "ConnectionError", "ProtocolMismatch"],
    ["ERR_SSL_TLSV1_ALERT_INAPPROPRIATE_FALLBACK", "ConnectionError", "ProtocolMismatch"],
    ["ERR_SSL_TLSV1_ALERT_INSUFFICIENT_SECURITY", "ConnectionError", "Negotiation"],
    ["ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE", "ConnectionError", "Negotiation"],
    ["ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE", "ConnectionError", "Negotiation"],
    ["ERR_SSL_SSL/TLS_ALERT_ILLEGAL_PARAMETER", "ConnectionError", "Negotiation"],
    ["ERR_SSL_SOMETHING_NEW", "ConnectionError", "Negotiation"],
    ["ESOMETHINGNEW", "ConnectionError", "HandshakeReset"],
    ["ERR_OSSL_X509_KEY_VALUES_MISMATCH", "IdentityError", "Malformed"],
    ["ERR_OSSL_PEM_NO_START_LINE", "IdentityError", "Malformed"],
    ["ERR_SSL_CA_MD_TOO_WEAK", "IdentityError", "Malformed"]
  ]
  for (const [code, tag, reason] of codes) {
    it(`${code}: ${tag} ${reason}`, () => {
      const error = fromHandshake(Object.assign(new Error("no"), { code }), context)
      expect(error._tag).toBe(tag)
      expect(error).toMatchObject(tag === "TimeoutError" ? { phase: reason } : { reason })
      if (error._tag === "ConnectionError") expect(error).toMatchObject({ outcome: "NotSent", code })
    })
  }
})
