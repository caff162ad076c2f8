import { IdentityError } from "@agentweave/spiffe/IdentityError"
import * as SpiffeBundle from "@agentweave/spiffe/SpiffeBundle"
import type { TrustDomain } from "@agentweave/spiffe/TrustDomain"
import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import * as Either from "effect/Either"

/** PEM is ASCII between text of any encoding. */
export const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1")

const utf8 = (bytes: Uint8Array): Either.Either<string, IdentityError> =>
  Either.try({
    try: () => new TextDecoder("utf-8", { fatal: true }).decode(bytes),
    catch: () => new IdentityError({ reason: "Malformed", description: "expected UTF-8, got other bytes" })
  })

/** A SPIFFE bundle document. */
export const parseDocument = (
  trustDomain: TrustDomain,
  bytes: Uint8Array
): Either.Either<SpiffeBundle.SpiffeBundle, IdentityError> =>
  Either.flatMap(utf8(bytes), (text) => SpiffeBundle.parse(trustDomain, text))

const looksLikeJson = (bytes: Uint8Array): boolean => /^\s*[{[]/.test(latin1(bytes.subarray(0, 1024)))

/** A SPIFFE bundle document or PEM, whichever it is. */
export const parseBundle = (
  trustDomain: TrustDomain,
  bytes: Uint8Array
): Either.Either<SpiffeBundle.SpiffeBundle, IdentityError> =>
  looksLikeJson(bytes)
    ? parseDocument(trustDomain, bytes)
    : Either.map(X509Bundle.fromPem(trustDomain, latin1(bytes)), (x509Bundle) => SpiffeBundle.make({ x509Bundle }))
