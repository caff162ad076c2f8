import { IdentityError } from "@agentweave/spiffe/IdentityError"
import * as SpiffeBundle from "@agentweave/spiffe/SpiffeBundle"
import type { TrustDomain } from "@agentweave/spiffe/TrustDomain"
import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"

/** PEM is ASCII between text of any encoding. */
export const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1")

const utf8 = (bytes: Uint8Array): Either.Either<string, IdentityError> =>
  Either.try({
    try: () => new TextDecoder("utf-8", { fatal: true }).decode(bytes),
    catch: () => new IdentityError({ reason: "Malformed", description: "expected UTF-8, got other bytes" })
  })

/** A SPIFFE bundle document, in pieces that do not hold up the event loop. */
export const decodeDocument = (
  trustDomain: TrustDomain,
  bytes: Uint8Array
): Effect.Effect<SpiffeBundle.SpiffeBundle, IdentityError> =>
  Effect.flatMap(utf8(bytes), (text) => SpiffeBundle.decode(trustDomain, text))

const looksLikeJson = (bytes: Uint8Array): boolean => /^\s*[{[]/.test(latin1(bytes.subarray(0, 1024)))

/** The authorities of a SPIFFE bundle document or of PEM, whichever it is, in pieces that do not hold up the event loop. */
export const decodeBundle = (
  trustDomain: TrustDomain,
  bytes: Uint8Array
): Effect.Effect<X509Bundle.X509Bundle, IdentityError> =>
  looksLikeJson(bytes)
    ? Effect.map(decodeDocument(trustDomain, bytes), ({ x509Bundle }) => x509Bundle)
    : Effect.suspend(() => X509Bundle.decodePem(trustDomain, latin1(bytes)))

/** {@link decodeBundle} in one piece. */
export const parseBundle = (
  trustDomain: TrustDomain,
  bytes: Uint8Array
): Either.Either<SpiffeBundle.SpiffeBundle, IdentityError> =>
  looksLikeJson(bytes)
    ? Either.flatMap(utf8(bytes), (text) => SpiffeBundle.parse(trustDomain, text))
    : Either.map(X509Bundle.fromPem(trustDomain, latin1(bytes)), (x509Bundle) => SpiffeBundle.make({ x509Bundle }))
