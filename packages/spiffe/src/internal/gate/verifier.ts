import * as Either from "effect/Either"
import { describe, matches } from "../../PeerMatcher.js"
import { PeerVerificationError } from "../../PeerVerificationError.js"
import type { LazyChain, PeerVerifier, Purpose, VerifiedPeer, VerifyInput } from "../../PeerVerifier.js"
import * as LruCache from "../lruCache.js"
import { makeReader } from "./anchors.js"
import { bundleOf, chainKey, type GateInput, issuerKey, type Rejection, type Verdict, verifyUncached } from "./gate.js"
import { describeRefusal } from "./guard.js"
import type { SignatureCheck } from "./signature.js"
import { sizeRefusal } from "./sizeGuards.js"

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

/** Asks the matcher of today about a chain that was verified. */
const applyMatcher = (
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

/** A chain that was verified. */
interface Proven {
  readonly verdict: Verdict
  readonly chain: ReadonlyArray<Uint8Array>
}

/** A leaf that passed, and the chain it passed with. */
interface KnownLeaf extends Proven {
  readonly leaf: Uint8Array
}

const isLazy = (chain: VerifyInput["chain"]): chain is LazyChain => "certificates" in chain

const view = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const isSameBytes = (a: Uint8Array, b: Uint8Array): boolean => view(a).equals(b)

const certificatesOf = (chain: VerifyInput["chain"]): ReadonlyArray<Uint8Array> => {
  if (!isLazy(chain)) return chain
  const certificates = chain.certificates()
  const [first] = certificates
  if (first !== undefined && !isSameBytes(first, chain.leaf)) {
    throw new Error("expected the leaf to be the first of its chain, another certificate is")
  }
  return certificates
}

/**
 * Where a leaf is looked up: the end of its signature, which is cheaper than a digest. It need not be unique, because what
 * is found is compared byte by byte.
 */
const leafKey = (leaf: Uint8Array, purpose: Purpose): string =>
  purpose + view(leaf).toString("latin1", Math.max(0, leaf.length - 32))

/** CAs whose paths are remembered: few of them issue many leaves. */
const maxIssuers = 64

/** The verifier behind `PeerVerifier.make`, over a signature check of the caller's. */
export const makeVerifier = (cacheSize: number, isSignedBy: SignatureCheck): PeerVerifier => {
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

  const remember = (input: GateInput, key: string, verdict: Verdict): void => {
    successes.set(key, verdict)
    // A copy: a caller may use its buffers again.
    const chain = input.chain.map((certificate) => Uint8Array.from(certificate))
    const [leaf] = chain
    if (leaf === undefined) return
    leaves.set(leafKey(leaf, input.purpose), { verdict, leaf, chain })
    const issuer = issuerKey(leaf)
    if (issuer !== undefined) issuers.set(issuer, verdict.issuers)
  }

  const verifyChain = (input: GateInput): Either.Either<Verdict, Rejection> => {
    const size = sizeRefusal(input.chain)
    if (size !== undefined) return Either.left({ refusal: size, claimed: null })
    const key = chainKey(input.chain, input.purpose)
    const known = recall(input, successes.get(key))
    if (known !== undefined) return Either.right(known)
    const verified = verifyUncached(input, { anchorsOf, isSignedBy })
    if (Either.isRight(verified)) remember(input, key, verified.right)
    return verified
  }

  /** The chain that a leaf passes with, as far as is known without the one that was sent with it. */
  const verifyLeaf = (leaf: Uint8Array, input: VerifyInput): Proven | undefined => {
    const known = leaves.get(leafKey(leaf, input.purpose))
    if (known !== undefined && isSameBytes(known.leaf, leaf)) {
      const verdict = recall(input, known.verdict)
      return verdict && { verdict, chain: known.chain }
    }
    const issuer = issuerKey(leaf)
    const above = issuer === undefined ? undefined : issuers.get(issuer)
    if (above === undefined) return undefined
    const chain = [leaf, ...above]
    const verified = verifyChain({ ...input, chain })
    return Either.isLeft(verified) ? undefined : { verdict: verified.right, chain }
  }

  const verify = (input: VerifyInput): Either.Either<VerifiedPeer, PeerVerificationError> => {
    requireTime(input.now)
    const lazy = isLazy(input.chain) ? input.chain : undefined
    const known = lazy && verifyLeaf(lazy.leaf, input)
    if (known !== undefined) return applyMatcher(input, known.verdict, known.chain)
    const chain = certificatesOf(input.chain)
    const verified = verifyChain({ ...input, chain })
    return Either.isLeft(verified)
      ? Either.left(refuse(input, verified.left))
      : applyMatcher(input, verified.right, chain)
  }

  return {
    verify: (input) =>
      Either.flatMap(
        Either.try({ try: () => verify(input), catch: (cause) => faulted(input, cause) }),
        (result) => result
      )
  }
}
