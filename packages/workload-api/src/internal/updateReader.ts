/** From the bytes of an update to what it delivers, or to the reason why it is discarded. */
import { X509Certificate } from "node:crypto"
import {
  type IdentityError,
  type PeerVerifier,
  SpiffeId,
  TrustDomain,
  X509Bundle,
  X509BundleSet,
  X509Svid
} from "@agentweave/spiffe"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { DiscardReason } from "../WorkloadApiEvent.js"
import { decodeX509SvidResponse, type Limits, type X509SvidMessage, type X509SvidResponse } from "../WorkloadMessage.js"
import { spiffeScheme } from "./spiffeScheme.js"

export interface Refusal {
  readonly reason: DiscardReason
  readonly description: string
}

/** A federated bundle that cannot be used: its trust domain has no bundle in this update. */
export interface BundleRefusal extends Refusal {
  /** The name of the trust domain, or the key as it came when it names none. */
  readonly trustDomain: string
}

/** An update, checked: SVIDs in the agent's order, and every bundle that can be used. A bundle names what it left out. */
export interface Delivered {
  readonly svids: readonly [X509Svid.X509Svid, ...ReadonlyArray<X509Svid.X509Svid>]
  readonly bundles: X509BundleSet.X509BundleSet
  readonly refusedBundles: ReadonlyArray<BundleRefusal>
}

export interface UpdateLimits extends Limits {
  readonly maxAuthorities: number
}

export interface Rules {
  readonly limits: UpdateLimits
  readonly verifier: PeerVerifier.PeerVerifier
  /** Milliseconds since the epoch. */
  readonly now: number
  /** Bundles read before: one that comes again is not read again. */
  readonly known: X509BundleSet.X509BundleSet
  /** Whether an SVID is the one this program uses. */
  readonly isOurs: (svid: X509SvidMessage, index: number) => boolean
}

const refuse = (reason: DiscardReason, description: string): Either.Either<never, Refusal> =>
  Either.left({ reason, description })

const quote = (text: string): string => JSON.stringify(text.slice(0, 256))

type Bundles = Map<TrustDomain.TrustDomain, X509Bundle.X509Bundle>

/** One bundle a trust domain: the same one may come with several SVIDs, another one is a conflict. */
const addBundle = (bundles: Bundles, bundle: X509Bundle.X509Bundle): Either.Either<void, Refusal> => {
  const known = bundles.get(bundle.trustDomain)
  if (known !== undefined && known.generation !== bundle.generation) {
    return refuse("ConflictingBundles", `expected one bundle for ${bundle.trustDomain}, got two different ones`)
  }
  bundles.set(bundle.trustDomain, bundle)
  return Either.right(undefined)
}

/** Whether a bundle was read from these very bytes; one that left something out was read from others. */
const isFrom = (bundle: X509Bundle.X509Bundle, der: Uint8Array): boolean => {
  if (bundle.leftOut !== undefined) return false
  let offset = 0
  for (const authority of bundle.authorities) {
    if (Buffer.compare(der.subarray(offset, offset + authority.length), authority) !== 0) return false
    offset += authority.length
  }
  return offset === der.length
}

const readBundle = (
  trustDomain: TrustDomain.TrustDomain,
  der: Uint8Array,
  { known, limits }: Rules
): Either.Either<X509Bundle.X509Bundle, Refusal> => {
  const before = known.bundles.get(trustDomain)
  if (before !== undefined && isFrom(before, der)) return Either.right(before)
  const bundle = X509Bundle.fromDer(trustDomain, der)
  if (Either.isLeft(bundle)) return refuse("InvalidBundle", bundle.left.description)
  const { authorities } = bundle.right
  if (authorities.length > limits.maxAuthorities) {
    return refuse(
      "LimitExceeded",
      `bundle of ${trustDomain}: expected at most ${limits.maxAuthorities} certificates, got ${authorities.length}`
    )
  }
  return withoutLeaves(bundle.right)
}

/** A bundle without the certificates that are no CA: their holders must not sign for others. */
const withoutLeaves = (bundle: X509Bundle.X509Bundle): Either.Either<X509Bundle.X509Bundle, Refusal> => {
  const { leftOut: unreadable = [], trustDomain } = bundle
  const usable: Array<Uint8Array> = []
  const leftOut = [...unreadable]
  for (const authority of bundle.authorities) {
    const { ca, fingerprint256 } = new X509Certificate(authority)
    if (ca) usable.push(authority)
    else leftOut.push({ entry: `the certificate with fingerprint ${fingerprint256}`, problem: "no CA" })
  }
  if (usable.length === bundle.authorities.length) return Either.right(bundle)
  if (usable.length === 0) {
    return refuse("InvalidBundle", `bundle of ${trustDomain}: expected authorities, got certificates that are no CA`)
  }
  return Either.mapBoth(X509Bundle.fromDer(trustDomain, usable), {
    onLeft: ({ description }): Refusal => ({ reason: "InvalidBundle", description }),
    onRight: (kept): X509Bundle.X509Bundle => ({ ...kept, leftOut })
  })
}

/** Federated bundles are keyed by the SPIFFE ID of their trust domain; an empty one trusts nobody. */
const readFederated = (id: string, der: Uint8Array, rules: Rules): Either.Either<X509Bundle.X509Bundle, Refusal> => {
  const trustDomain = TrustDomain.parse(id.startsWith(spiffeScheme) ? id.slice(spiffeScheme.length) : "")
  if (Either.isLeft(trustDomain)) {
    return refuse("InvalidSpiffeId", `federated bundle: expected the SPIFFE ID of a trust domain, got ${quote(id)}`)
  }
  return der.length === 0
    ? Either.right(X509Bundle.empty(trustDomain.right))
    : readBundle(trustDomain.right, der, rules)
}

/** The trust domain that the key of a federated bundle names, for people: whatever the key is, it steers no terminal. */
const nameOf = (id: string): string =>
  (id.startsWith(spiffeScheme) ? id.slice(spiffeScheme.length) : id).slice(0, 256).replaceAll(/[^\x20-\x7e]/g, "?")

/** The longest chain that peers read: the gate refuses longer chains, and no more than this is parsed for it. */
const maxChainBytes = 65_536

const missingField = (message: X509SvidMessage): string | undefined => {
  if (message.spiffeId === "") return "spiffe_id"
  if (message.x509Svid.length === 0) return "x509_svid"
  if (Redacted.value(message.x509SvidKey).length === 0) return "x509_svid_key"
  return message.bundle.length === 0 ? "bundle" : undefined
}

/** Why an SVID is refused; with the trust domain when it is for the bundle that came with it. */
interface SvidRefusal extends Refusal {
  readonly bundleOf?: TrustDomain.TrustDomain
}

const readSvid = (
  message: X509SvidMessage,
  position: number,
  rules: Rules
): Either.Either<{ readonly svid: X509Svid.X509Svid; readonly bundle: X509Bundle.X509Bundle }, SvidRefusal> => {
  const missing = missingField(message)
  if (missing !== undefined) return refuse("MissingField", `SVID ${position}: expected ${missing}, got none`)
  const id = SpiffeId.parse(message.spiffeId)
  if (Either.isLeft(id)) return refuse("InvalidSpiffeId", `SVID ${position}: ${id.left.message}`)
  if (message.x509Svid.length > maxChainBytes) {
    return refuse(
      "LimitExceeded",
      `SVID ${position}: expected at most ${maxChainBytes} bytes of certificates, got more`
    )
  }
  const svid = X509Svid.fromDer({
    certificates: message.x509Svid,
    privateKey: message.x509SvidKey,
    hint: message.hint === "" ? undefined : message.hint
  })
  if (Either.isLeft(svid)) return refuse("InvalidSvid", `SVID ${position}: ${svid.left.description}`)
  if (svid.right.spiffeId !== id.right) {
    return refuse(
      "SpiffeIdMismatch",
      `SVID ${position}: expected a certificate for ${id.right}, got one for ${svid.right.spiffeId}`
    )
  }
  const trustDomain = SpiffeId.trustDomain(id.right)
  return Either.mapBoth(readBundle(trustDomain, message.bundle, rules), {
    onLeft: (refusal): SvidRefusal => ({ ...refusal, bundleOf: trustDomain }),
    onRight: (bundle) => ({ svid: svid.right, bundle })
  })
}

/** The trust domain of the SVID this program uses; `undefined` when it is not among them. */
const domainOfOurs = ({ svids }: X509SvidResponse, { isOurs }: Rules): TrustDomain.TrustDomain | undefined =>
  Option.fromNullable(svids.find(isOurs)).pipe(
    Option.flatMap(({ spiffeId }) => Either.getRight(SpiffeId.parse(spiffeId))),
    Option.map(SpiffeId.trustDomain),
    Option.getOrUndefined
  )

const ownRefusal = (error: IdentityError.IdentityError): Refusal => ({
  reason: error.reason === "Expired" ? "Expired" : "InvalidSvid",
  description: error.description
})

/** Our own SVID passes what every peer will put it through; one that begins later is judged as of then. */
const validate = (svid: X509Svid.X509Svid, bundles: X509BundleSet.X509BundleSet, rules: Rules) =>
  Either.mapLeft(
    X509Svid.validate(svid, { bundles, verifier: rules.verifier, now: Math.max(rules.now, svid.notBefore) }),
    ownRefusal
  )

const check = (message: X509SvidResponse, rules: Rules): Either.Either<Delivered, Refusal> =>
  Either.gen(function* () {
    const found: Bundles = new Map()
    const svids: Array<X509Svid.X509Svid> = []
    const refusedBundles: Array<BundleRefusal> = []
    const ownDomain = domainOfOurs(message, rules)
    for (const [index, entry] of message.svids.entries()) {
      const read = readSvid(entry, index + 1, rules)
      if (Either.isLeft(read) && read.left.bundleOf !== undefined && read.left.bundleOf !== ownDomain) {
        const { bundleOf, ...refusal } = read.left
        refusedBundles.push({ trustDomain: bundleOf, ...refusal })
        continue
      }
      const { bundle, svid } = yield* read
      yield* addBundle(found, bundle)
      svids.push(svid)
    }
    for (const [id, der] of message.federatedBundles) {
      const added = Either.flatMap(readFederated(id, der, rules), (bundle) => addBundle(found, bundle))
      if (Either.isLeft(added)) refusedBundles.push({ trustDomain: nameOf(id), ...added.left })
    }
    const [first, ...others] = svids
    if (first === undefined) return yield* refuse("MissingField", "expected at least one SVID, got none")
    const bundles = yield* Either.mapLeft(X509BundleSet.make(found.values()), ownRefusal)
    for (const svid of svids) yield* validate(svid, bundles, rules)
    return { svids: [first, ...others], bundles, refusedBundles }
  })

/**
 * Reads an update. The SVIDs and the bundle of our own trust domain are taken whole or not at all: half of them would be
 * neither the old state nor the new one. Another bundle, with the SVIDs of its domain, is the work of another trust domain: one that cannot be used is left out and
 * named, so that its domain cannot be verified and nothing else changes. The last good one does not stay in its place:
 * it may hold an authority that the domain has since revoked.
 */
export const read = (bytes: Redacted.Redacted<Uint8Array>, rules: Rules): Either.Either<Delivered, Refusal> =>
  decodeX509SvidResponse(Redacted.value(bytes), rules.limits).pipe(
    Either.mapLeft(({ description, reason }): Refusal => ({ reason, description })),
    Either.flatMap((message) => check(message, rules))
  )
