/**
 * The gate: verifies a peer's X.509-SVID. One piece of code for clients and servers, synchronous.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as Certificate from "./Certificate.js"
import { type ExplainInput, type Explanation, explain as explainPeer } from "./Explanation.js"
import type { IdentityError } from "./IdentityError.js"
import type { InvalidConfigError } from "./InvalidConfigError.js"
import { makeReader } from "./internal/gate/anchors.js"
import { bundleOf, chainKey, issuerKey, judge, type Rejection, type Verdict } from "./internal/gate/gate.js"
import { describeRefusal } from "./internal/gate/guard.js"
import { makeCheck, type SignatureCheck } from "./internal/gate/signature.js"
import { sizeRefusal } from "./internal/gate/sizeGuards.js"
import * as LruCache from "./internal/lruCache.js"
import * as OptionsDecoder from "./OptionsDecoder.js"
import { describe, matches, type PeerMatcher } from "./PeerMatcher.js"
import { PeerVerificationError } from "./PeerVerificationError.js"
import type { SpiffeId } from "./SpiffeId.js"
import type { X509BundleSet } from "./X509BundleSet.js"

/**
 * The role in which the peer presents its certificate: `ServerAuth` when a client verifies a server.
 *
 * @since 0.1.0
 * @category models
 */
export type Purpose = "ServerAuth" | "ClientAuth"

/**
 * The peer to judge, and what it is judged against.
 *
 * @since 0.1.0
 * @category models
 */
export interface VerifyInput {
  /** The certificates the peer sent, DER: the leaf first, the rest unordered and untrusted. */
  readonly chain: ReadonlyArray<Uint8Array>
  readonly bundles: X509BundleSet
  readonly matcher: PeerMatcher
  readonly purpose: Purpose
  /** Milliseconds since the epoch, from Effect's Clock. */
  readonly now: number
}

/**
 * The same, of a peer's leaf alone.
 *
 * @since 0.1.0
 * @category models
 */
export interface RecognizeInput extends Omit<VerifyInput, "chain"> {
  /** DER of the certificate whose key the peer has proven to hold. */
  readonly leaf: Uint8Array
}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** How many chains, and how many leaves, are remembered. 0 remembers none. Default 1024. */
  readonly cacheSize?: number | undefined
}

const defaultCacheSize = 1024

const decode = OptionsDecoder.decoder(
  "PeerVerifier",
  Schema.Struct({
    cacheSize: Schema.optionalWith(OptionsDecoder.NumberIn(0), { default: () => defaultCacheSize })
  })
)

/**
 * A peer that passed the gate.
 *
 * @since 0.1.0
 * @category models
 */
export interface VerifiedPeer {
  readonly spiffeId: SpiffeId
  /** The leaf's serial number, upper-case hex. */
  readonly serialNumber: string
  /** SHA-256 of the leaf's DER, lower-case hex. */
  readonly fingerprint: string
  /** Generation of the bundle the path ended in. */
  readonly bundleGeneration: string
  /** Earliest notAfter on the path, anchor included, milliseconds since the epoch. */
  readonly notAfter: number
  /** The certificates the peer sent, for a later run of the gate when a bundle changes. */
  readonly chain: ReadonlyArray<Uint8Array>
}

/**
 * The gate: judges the certificates of a peer by the rules of X.509 and SPIFFE.
 *
 * @since 0.1.0
 * @category models
 */
export interface PeerVerifier {
  /** Judges a peer. Synchronous, and never throws: a fault inside is a refusal with reason `VerifierFault`. */
  readonly verify: (input: VerifyInput) => Either.Either<VerifiedPeer, PeerVerificationError>
  /**
   * Judges a peer by its leaf alone. When this very leaf passed before in the same role, the path it had then is still a
   * path to one of today's authorities, whatever was sent with the leaf this time. When another leaf of the same CA
   * passed, this one is judged in full, by every rule, with the CAs that the other had above it. `undefined` when there
   * is nothing to go by, or no success: then the chain is to be verified. `chain` of the peer is the one that passed.
   */
  readonly recognize: (input: RecognizeInput) => Either.Either<VerifiedPeer, PeerVerificationError> | undefined
}

type Matched = Pick<VerifyInput, "matcher">

/** Describes what was expected even of an input that is not what its type says. */
const expectedOf = (input: Matched): string =>
  Either.getOrElse(
    Either.try(() => String(describe(input.matcher))),
    () => "an unreadable matcher"
  )

const refuse = (input: Matched, { claimed, refusal }: Rejection): PeerVerificationError =>
  new PeerVerificationError({
    expectedId: expectedOf(input),
    actualId: claimed,
    reason: refusal.reason,
    description: describeRefusal(refusal)
  })

const requireTime = (now: number): void => {
  if (!Number.isFinite(now)) throw new RangeError(`expected a time in milliseconds, got ${now}`)
}

/** The verified peer, under the matcher of today. */
const admit = (
  input: Matched,
  { bundleGeneration, fingerprint, notAfter, serialNumber, spiffeId }: Verdict,
  chain: ReadonlyArray<Uint8Array>
): Either.Either<VerifiedPeer, PeerVerificationError> => {
  if (!matches(input.matcher, spiffeId)) {
    const refusal = {
      rule: "matcher",
      reason: "UnexpectedPeer",
      expected: describe(input.matcher),
      seen: spiffeId
    } as const
    return Either.left(refuse(input, { refusal, claimed: spiffeId }))
  }
  return Either.right({ spiffeId, serialNumber, fingerprint, bundleGeneration, notAfter, chain })
}

const faulted = (input: Matched, cause: unknown): PeerVerificationError =>
  new PeerVerificationError({
    expectedId: expectedOf(input),
    actualId: null,
    reason: "VerifierFault",
    description: "the verifier failed, so the peer is refused",
    cause
  })

/** A leaf that passed, and the chain it passed with. */
interface KnownLeaf {
  readonly verdict: Verdict
  readonly leaf: Uint8Array
  readonly chain: ReadonlyArray<Uint8Array>
}

const view = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const isSameBytes = (a: Uint8Array, b: Uint8Array): boolean => view(a).equals(b)

/**
 * Where a leaf is looked up: the end of its signature, which is cheaper than a digest. It need not be unique, because what
 * is found is compared byte by byte.
 */
const leafKey = (leaf: Uint8Array, purpose: Purpose): string =>
  purpose + view(leaf).toString("latin1", Math.max(0, leaf.length - 32))

/** CAs whose paths are remembered: few of them issue many leaves. */
const maxIssuers = 64

/**
 * A verifier with the sizes of its caches, for tests.
 *
 * @internal
 */
export const makeWith = (cacheSize: number, isSignedBy: SignatureCheck): PeerVerifier => {
  const anchorsOf = makeReader()
  const successes = LruCache.make<Verdict>(cacheSize)
  const leaves = LruCache.make<KnownLeaf>(cacheSize)
  /** The CAs above a leaf that passed, by who the leaf says issued it: candidates for the next, trusted in nothing. */
  const issuers = LruCache.make<ReadonlyArray<Uint8Array>>(Math.min(cacheSize, maxIssuers))

  /** A remembered success, if the same authorities stand today and the path is within its dates. */
  const recall = (input: Pick<VerifyInput, "bundles" | "now">, verdict: Verdict | undefined): Verdict | undefined => {
    if (verdict === undefined || input.now < verdict.notBefore || input.now > verdict.notAfter) return undefined
    const bundle = bundleOf(input.bundles, verdict.trustDomain)
    if (bundle === undefined || anchorsOf(bundle).digest !== verdict.anchors) return undefined
    return { ...verdict, bundleGeneration: bundle.generation }
  }

  const remember = (input: VerifyInput, key: string, verdict: Verdict): void => {
    successes.set(key, verdict)
    const [leaf] = input.chain
    if (leaf === undefined) return
    leaves.set(leafKey(leaf, input.purpose), { verdict, leaf, chain: input.chain })
    const issuer = issuerKey(leaf)
    if (issuer !== undefined) issuers.set(issuer, verdict.issuers)
  }

  const prove = (input: VerifyInput): Either.Either<Verdict, Rejection> => {
    const size = sizeRefusal(input.chain)
    if (size !== undefined) return Either.left({ refusal: size, claimed: null })
    const key = chainKey(input.chain, input.purpose)
    const known = recall(input, successes.get(key))
    if (known !== undefined) return Either.right(known)
    const judged = judge(input, { anchorsOf, isSignedBy })
    if (Either.isRight(judged)) remember(input, key, judged.right)
    return judged
  }

  const verify = (input: VerifyInput): Either.Either<VerifiedPeer, PeerVerificationError> => {
    requireTime(input.now)
    const proven = prove(input)
    return Either.isLeft(proven) ? Either.left(refuse(input, proven.left)) : admit(input, proven.right, input.chain)
  }

  const recognize = (input: RecognizeInput): Either.Either<VerifiedPeer, PeerVerificationError> | undefined => {
    requireTime(input.now)
    const known = leaves.get(leafKey(input.leaf, input.purpose))
    if (known !== undefined && isSameBytes(known.leaf, input.leaf)) {
      const verdict = recall(input, known.verdict)
      return verdict === undefined ? undefined : admit(input, verdict, known.chain)
    }
    const issuer = issuerKey(input.leaf)
    const above = issuer === undefined ? undefined : issuers.get(issuer)
    if (above === undefined) return undefined
    const { leaf, ...rest } = input
    const chain = [leaf, ...above]
    const proven = prove({ ...rest, chain })
    return Either.isLeft(proven) ? undefined : admit(input, proven.right, chain)
  }

  return {
    verify: (input) =>
      Either.flatMap(
        Either.try({ try: () => verify(input), catch: (cause) => faulted(input, cause) }),
        (result) => result
      ),
    recognize: (input) =>
      Either.getOrElse(Either.try({ try: () => recognize(input), catch: (cause) => faulted(input, cause) }), (fault) =>
        Either.left(fault)
      )
  }
}

/**
 * The gate. A peer passes when the chain it sent is small enough to read, its leaf keeps the X.509-SVID profile, a path
 * of verified signatures leads from the leaf to an authority in the bundle of the leaf's own trust domain, every
 * certificate of the path keeps RFC 5280 and is within its dates, and the matcher accepts the SPIFFE ID. It stands on
 * top of the TLS stack's own verification, not in its place.
 *
 * Chains that passed, and their leaves, are remembered by their digest, tied to the authorities, the purpose and the
 * dates of the path; the matcher is asked every time, and no refusal is remembered. `cacheSize` bounds how many of each.
 * So are the CAs on the paths of the last 64 issuers, as candidates for other leaves.
 *
 * With options the result is an `Either`: a `cacheSize` that is no whole number, or negative, is an `InvalidConfigError`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { PeerMatcher, PeerVerifier, SpiffeId, X509BundleSet } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const verifier = PeerVerifier.make()
 * const result = verifier.verify({
 *   chain: [],
 *   bundles: X509BundleSet.empty,
 *   matcher: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/api")),
 *   purpose: "ServerAuth",
 *   now: 0
 * })
 * console.log(Either.isLeft(result)) // true: reason NoCertificate
 * ```
 */
export function make(): PeerVerifier
export function make(options: Options): Either.Either<PeerVerifier, InvalidConfigError>
export function make(options?: Options): PeerVerifier | Either.Either<PeerVerifier, InvalidConfigError> {
  const ofSize = (cacheSize: number) => makeWith(cacheSize, makeCheck())
  return options === undefined
    ? ofSize(defaultCacheSize)
    : Either.map(decode(options), ({ cacheSize }) => ofSize(cacheSize))
}

/**
 * Every rule in order, what it expected and what it saw: see {@link Explanation}. For people and tools, not for the path
 * of a connection.
 *
 * @since 0.1.0
 * @category explaining
 */
export const explain: (input: ExplainInput) => Effect.Effect<Explanation> = explainPeer

/**
 * The chain that a verified peer presented, the leaf first, for people and handlers to look at: for a DNS name of the leaf, say.
 * Only the SPIFFE ID was matched with anything; see {@link Certificate}.
 *
 * @since 0.1.0
 * @category conversions
 * @example
 * ```ts
 * import { Certificate, PeerVerifier } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const dnsNames = (peer: PeerVerifier.VerifiedPeer) =>
 *   Either.map(PeerVerifier.x509Certificates(peer), ([leaf]) => {
 *     const { SubjectAlternativeNameExtension } = Certificate.library()
 *     const names = leaf?.getExtension(SubjectAlternativeNameExtension)?.names.items ?? []
 *     return names.filter(({ type }) => type === "dns").map(({ value }) => value)
 *   })
 * ```
 */
export const x509Certificates = (
  self: VerifiedPeer
): Either.Either<ReadonlyArray<Certificate.X509Certificate>, IdentityError> => Certificate.fromDers(self.chain)
