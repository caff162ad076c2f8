/** The rules for the fields of a `CertificateProfile`. Most of them may hold anything, since a profile says what is wrong. */
import { OptionsDecoder } from "@agentweave/spiffe"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { CertificateProfile } from "../../CertificateProfile.js"
import { MintError } from "../../MintError.js"

export const KeyAlgorithms = OptionsDecoder.OneOf(
  "P-256",
  "P-384",
  "P-521",
  "Ed25519",
  "Ed448",
  "secp256k1",
  "RSA-1024",
  "RSA-2048",
  "RSA-3072",
  "RSA-4096"
)

const anything = Schema.optional(Schema.Unknown)

const decode = OptionsDecoder.decoder(
  "CertificateProfile",
  Schema.Struct({
    ttl: Schema.optional(OptionsDecoder.NonNegativeDuration),
    keyAlgorithm: Schema.optional(KeyAlgorithms),
    signatureHash: Schema.optional(OptionsDecoder.OneOf("SHA-1", "SHA-256", "SHA-384", "SHA-512")),
    signaturePadding: Schema.optional(OptionsDecoder.OneOf("PKCS1", "PSS")),
    signature: Schema.optional(OptionsDecoder.OneOf("Valid", "WrongKey", "Altered")),
    subject: anything,
    serialNumber: anything,
    validity: anything,
    keyPair: anything,
    basicConstraints: anything,
    keyUsage: anything,
    extendedKeyUsage: anything,
    uris: anything,
    dnsNames: anything,
    ipAddresses: anything,
    emails: anything,
    nameConstraints: anything,
    subjectKeyIdentifier: anything,
    authorityKeyIdentifier: anything,
    extensions: anything
  } satisfies { readonly [Field in keyof CertificateProfile]-?: unknown })
)

/** Refuses a profile with a field that there is not, or with a value that would be taken for another. */
export const check = (profile: CertificateProfile): Effect.Effect<void, MintError> =>
  Effect.mapError(
    decode(profile),
    (cause) => new MintError({ reason: "InvalidProfile", description: cause.message, cause })
  )
