/** Checks the signatures of checkpoints, and which records a signature counts for. */
import { verify as verifySignature, X509Certificate } from "node:crypto"
import type { PeerMatcher } from "@agentweave/spiffe/PeerMatcher"
import * as PeerVerifier from "@agentweave/spiffe/PeerVerifier"
import type { X509BundleSet } from "@agentweave/spiffe/X509BundleSet"
import * as Either from "effect/Either"
import { type Checkpoint, type Record, signedBy, withSignature } from "../audit/format.js"

/** Which signers are believed. */
export interface Trust {
  /** Every authority that may have issued the signers' certificates, those of the past included. */
  readonly bundles: X509BundleSet
  readonly expected: PeerMatcher
}

/** A signer's certificates, read. */
export interface SignerCertificates {
  readonly ownId: string
  readonly der: readonly [Uint8Array, ...ReadonlyArray<Uint8Array>]
  /** Latest notBefore and earliest notAfter over the certificates, milliseconds since the epoch. */
  readonly notBefore: number
  readonly notAfter: number
  /** Name of the authority that issued the last certificate of the chain. */
  readonly issuer: string
}

export const digestFor = (keyType: string | undefined): string | null =>
  keyType === "ed25519" || keyType === "ed448" ? null : "sha256"

const read = ({ certificates, ownId }: Checkpoint): SignerCertificates => {
  const [leaf, ...rest] = certificates
  const parsed = certificates.map((text) => new X509Certificate(Buffer.from(text, "base64")))
  return {
    ownId,
    der: [Buffer.from(leaf, "base64"), ...rest.map((text) => Buffer.from(text, "base64"))],
    notBefore: Math.max(...parsed.map(({ validFrom }) => Date.parse(validFrom))),
    notAfter: Math.min(...parsed.map(({ validTo }) => Date.parse(validTo))),
    issuer: (parsed.at(-1)?.issuer ?? "").replaceAll("\n", ", ")
  }
}

/** Signers by the certificates they present, so that each is read and verified once. */
export class Signers {
  private readonly known = new Map<string, Either.Either<SignerCertificates, string>>()
  private readonly verifier = PeerVerifier.make()
  private readonly trust: Trust | undefined

  constructor(trust: Trust | undefined) {
    this.trust = trust
  }

  /** The signer of a checkpoint, or what is wrong with its signature. */
  check(record: Record, checkpoint: Checkpoint, line: string): Either.Either<SignerCertificates, string> {
    const signed = signedBy(record, line)
    if (!("final" in checkpoint) && !isWhole(line, checkpoint.signature)) {
      return Either.left("expected nothing behind the signature of a checkpoint")
    }
    const genuine = Either.try(() => {
      const { publicKey } = new X509Certificate(Buffer.from(checkpoint.certificates[0], "base64"))
      const signature = Buffer.from(checkpoint.signature, "base64")
      // A decoder passes over what is no base64: only one text of a signature is the one that was written.
      const isExact = signature.toString("base64") === checkpoint.signature
      return isExact && verifySignature(digestFor(publicKey.asymmetricKeyType), signed, publicKey, signature)
    })
    if (!Either.getOrElse(genuine, () => false)) {
      return Either.left(
        `expected a checkpoint signed over everything up to record ${record.seq - 1}, its signature does not verify`
      )
    }
    const key = `${checkpoint.ownId} ${checkpoint.certificates.join(" ")}`
    const known =
      this.known.get(key) ??
      Either.mapLeft(
        Either.try(() => read(checkpoint)),
        String
      )
    this.known.set(key, known)
    return known
  }

  /** Why a signer is not known to be the expected workload at this time; `undefined` when it is. */
  strangeness(signer: SignerCertificates, now: number): string | undefined {
    const issued = `its certificate was issued by the authority "${signer.issuer}", valid from ${dateOf(signer.notBefore)} to ${dateOf(signer.notAfter)}`
    if (this.trust === undefined) return `no bundle was given to verify it with; ${issued}`
    const { bundles, expected: matcher } = this.trust
    const verifyAs = (purpose: PeerVerifier.Purpose) =>
      this.verifier.verify({ chain: signer.der, bundles, matcher, purpose, now })
    const verified = Either.orElse(verifyAs("ClientAuth"), () => verifyAs("ServerAuth"))
    if (Either.isLeft(verified)) return `${verified.left.message}; ${issued}`
    return verified.right.spiffeId === signer.ownId
      ? undefined
      : `the checkpoint names ${signer.ownId}, its certificate is of ${verified.right.spiffeId}`
  }
}

const isWhole = (line: string, signature: string): boolean => {
  const before = line.length - withSignature("", signature).length
  return line === withSignature(line.slice(0, before), signature)
}

const dateOf = (millis: number): string =>
  Number.isFinite(millis) ? new Date(millis).toISOString() : "an unknown date"
