import { IdentityError, type IdentityErrorReason } from "@agentweave/spiffe/IdentityError"
import type { PeerVerifier } from "@agentweave/spiffe/PeerVerifier"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type { TrustDomain } from "@agentweave/spiffe/TrustDomain"
import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as X509Svid from "@agentweave/spiffe/X509Svid"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { decodeBundle, latin1, parseBundle } from "../federation/parse.js"
import type { FileRead, Snapshot } from "./snapshot.js"

/** Which files make the identity. */
export interface Sources {
  readonly certificate: string
  readonly key: string
  readonly bundle: string
  readonly federatedBundles: ReadonlyMap<TrustDomain, string>
  /** Default: that of the first SVID. */
  readonly trustDomain: TrustDomain | undefined
}

export const pathsOf = (sources: Sources): ReadonlyArray<string> => [
  sources.certificate,
  sources.key,
  sources.bundle,
  ...sources.federatedBundles.values()
]

/** Why a part cannot be used. `key` is equal for the same fault of the same content. */
export interface Fault {
  readonly error: IdentityError
  readonly key: string
  /** Whether it is of what serves: only time can have made it so. */
  readonly isServing: boolean
  /** Whether the rest of the part serves: a bundle that left out an entry. */
  readonly isPartial: boolean
}

/** The outcome of reading one snapshot of the files. */
export interface ReconciledParts {
  /** The identity that serves now; `undefined` when there never was a whole one. The very same object when unchanged. */
  readonly context: X509Context.X509Context | undefined
  readonly faults: ReadonlyArray<Fault>
}

type Part<A> = Either.Either<A, IdentityError>

const refuse = (reason: IdentityErrorReason, description: string): Either.Either<never, IdentityError> =>
  Either.left(new IdentityError({ reason, description }))

const at =
  (role: string, path: string) =>
  (error: IdentityError): IdentityError =>
    new IdentityError({ reason: error.reason, description: `${role} ${path}: ${error.description}` })

const contentOf = (role: string, path: string, read: FileRead | undefined): Part<Uint8Array> => {
  if (read === undefined) return refuse("Unavailable", `${role} ${path}: expected a file, it was not read`)
  if (Either.isLeft(read.content)) {
    const { problem, reason } = read.content.left
    return refuse(reason, `${role} ${path}: expected a readable file, got ${problem}`)
  }
  const { bytes } = read.content.right
  return bytes.length === 0
    ? refuse("Malformed", `${role} ${path}: expected content, got an empty file`)
    : Either.right(bytes)
}

/** Parses the parts of a snapshot; what did not change since the last one is not parsed again. */
export interface Parser {
  readonly svid: (snapshot: Snapshot, sources: Sources) => Part<X509Svid.X509Svid>
  readonly bundle: (snapshot: Snapshot, trustDomain: TrustDomain, path: string) => Part<X509Bundle.X509Bundle>
  /** Parses a bundle ahead of {@link bundle}, in pieces that do not hold up the event loop. */
  readonly prepareBundle: (snapshot: Snapshot, trustDomain: TrustDomain, path: string) => Effect.Effect<void>
}

/** The last answer a name had, and the content it was given for. */
class Memo<A> {
  private readonly known = new Map<string, { readonly digest: string; readonly part: Part<A> }>()

  find(name: string, digest: string): Part<A> | undefined {
    const last = this.known.get(name)
    return last?.digest === digest ? last.part : undefined
  }

  set(name: string, digest: string, part: Part<A>): Part<A> {
    this.known.set(name, { digest, part })
    return part
  }
}

const digestOf = (snapshot: Snapshot, ...paths: ReadonlyArray<string>): string =>
  paths.map((path) => snapshot.files.get(path)?.digest).join("\n")

const readSvid = (snapshot: Snapshot, { certificate, key }: Sources): Part<X509Svid.X509Svid> =>
  Either.gen(function* () {
    const certificates = latin1(yield* contentOf("certificate", certificate, snapshot.files.get(certificate)))
    const privateKey = latin1(yield* contentOf("key", key, snapshot.files.get(key)))
    return yield* Either.mapLeft(
      X509Svid.fromPem({ certificates, privateKey }),
      at("certificate and key", `${certificate} and ${key}`)
    )
  })

export const makeParser = (): Parser => {
  const svids = new Memo<X509Svid.X509Svid>()
  const bundles = new Memo<X509Bundle.X509Bundle>()
  const nameOf = (trustDomain: TrustDomain, path: string): string => `${trustDomain} ${path}`
  return {
    svid: (snapshot, sources) => {
      const digest = digestOf(snapshot, sources.certificate, sources.key)
      return (
        svids.find(sources.certificate, digest) ?? svids.set(sources.certificate, digest, readSvid(snapshot, sources))
      )
    },
    bundle: (snapshot, trustDomain, path) => {
      const name = nameOf(trustDomain, path)
      const digest = digestOf(snapshot, path)
      const known = bundles.find(name, digest)
      if (known !== undefined) return known
      const parsed = Either.flatMap(contentOf("bundle", path, snapshot.files.get(path)), (bytes) =>
        Either.mapBoth(parseBundle(trustDomain, bytes), {
          onLeft: at("bundle", path),
          onRight: ({ x509Bundle }) => x509Bundle
        })
      )
      return bundles.set(name, digest, parsed)
    },
    prepareBundle: (snapshot, trustDomain, path) =>
      Effect.gen(function* () {
        const name = nameOf(trustDomain, path)
        const digest = digestOf(snapshot, path)
        if (bundles.find(name, digest) !== undefined) return
        const content = contentOf("bundle", path, snapshot.files.get(path))
        const decoded = Effect.flatMap(content, (bytes) =>
          Effect.mapError(decodeBundle(trustDomain, bytes), at("bundle", path))
        )
        bundles.set(name, digest, yield* Effect.either(decoded))
      })
  }
}

const sameBytes = (a: ReadonlyArray<Uint8Array>, b: ReadonlyArray<Uint8Array>): boolean =>
  a.length === b.length && a.every((bytes, index) => Buffer.compare(bytes, b[index] ?? new Uint8Array()) === 0)

/** Equal credentials stay the same object: the key belongs to the leaf, so equal chains are equal SVIDs. */
const keepSvid = (last: X509Svid.X509Svid | undefined, next: X509Svid.X509Svid): X509Svid.X509Svid =>
  last !== undefined && sameBytes(last.certificates, next.certificates) ? last : next

const keepContext = (
  last: X509Context.X509Context | undefined,
  svid: X509Svid.X509Svid,
  bundles: X509BundleSet.X509BundleSet
): X509Context.X509Context =>
  last !== undefined && last.svid === svid && last.bundles.generation === bundles.generation
    ? last
    : X509Context.make({ svid, bundles })

interface Given {
  readonly sources: Sources
  readonly snapshot: Snapshot
  readonly last: X509Context.X509Context | undefined
  readonly parser: Parser
}

/** Our own trust domain: as configured, else that of the last SVID, else that of the first. */
const ownDomain = ({ last, parser, snapshot, sources }: Given): TrustDomain | undefined => {
  if (sources.trustDomain !== undefined) return sources.trustDomain
  if (last !== undefined) return SpiffeId.trustDomain(last.svid.spiffeId)
  const read = parser.svid(snapshot, sources)
  return Either.isRight(read) ? SpiffeId.trustDomain(read.right.spiffeId) : undefined
}

/** Parses the bundles that {@link reconcileParts} will ask for, in pieces that do not hold up the event loop. */
export const prepareBundles = (given: Given): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { parser, snapshot, sources } = given
    const own = ownDomain(given)
    const paths = Array.from(sources.federatedBundles).concat(own === undefined ? [] : [[own, sources.bundle]])
    return Effect.forEach(paths, ([domain, path]) => parser.prepareBundle(snapshot, domain, path), { discard: true })
  })

/**
 * Reads each part by itself: the SVID (certificate and key, which must belong together), the own bundle, each federated
 * bundle. A part that cannot be used is a fault, and the last good one stays: a broken certificate must not keep alive the
 * trust in an authority that a good bundle has just removed.
 */
export const reconcileParts = (
  options: Given & {
    /** Milliseconds since the epoch. */
    readonly now: number
    readonly verifier: PeerVerifier
  }
): ReconciledParts => {
  const { last, now, parser, snapshot, sources, verifier } = options
  const faults: Array<Fault> = []
  const fault = (
    error: IdentityError,
    paths: ReadonlyArray<string>,
    { isPartial = false, isServing = false }: Partial<Pick<Fault, "isPartial" | "isServing">> = {}
  ): undefined => {
    faults.push({ error, key: [error.reason, ...paths, digestOf(snapshot, ...paths)].join("\n"), isPartial, isServing })
  }

  const read = parser.svid(snapshot, sources)
  const trustDomain = ownDomain(options)
  const svidPaths = [sources.certificate, sources.key]
  if (Either.isLeft(read)) fault(read.left, svidPaths)
  if (trustDomain === undefined) return { context: undefined, faults }

  const bundles = new Map<TrustDomain, X509Bundle.X509Bundle>()
  const take = (domain: TrustDomain, path: string): void => {
    const bundle = parser.bundle(snapshot, domain, path)
    if (Either.isLeft(bundle)) fault(bundle.left, [path])
    const leftOut = Either.isRight(bundle) ? X509Bundle.describeLeftOut(bundle.right) : undefined
    if (leftOut !== undefined) {
      const error = new IdentityError({ reason: "Malformed", description: leftOut })
      fault(at("bundle", path)(error), [path], { isPartial: true })
    }
    const usable = Either.isRight(bundle) ? bundle.right : last?.bundles.bundles.get(domain)
    if (usable !== undefined) bundles.set(domain, usable)
  }
  for (const [domain, path] of sources.federatedBundles) {
    if (domain !== trustDomain) take(domain, path)
    else
      fault(
        new IdentityError({
          reason: "Malformed",
          description: `bundle ${path}: expected the bundle of a foreign trust domain, got ${domain}, our own`
        }),
        [path]
      )
  }
  // Last, so that no other file can stand in its place.
  take(trustDomain, sources.bundle)

  const made = X509BundleSet.make(bundles.values())
  if (Either.isLeft(made)) {
    fault(made.left, pathsOf(sources))
    return { context: last, faults }
  }

  const judged = Either.flatMap(read, (svid) => {
    if (SpiffeId.trustDomain(svid.spiffeId) !== trustDomain) {
      return refuse("InvalidSvid", `expected an SVID of trust domain ${trustDomain}, got ${svid.spiffeId}`)
    }
    return X509Svid.validate(svid, { bundles: made.right, now, verifier })
  })
  if (Either.isRight(read) && Either.isLeft(judged)) {
    const isServing = last !== undefined && sameBytes(last.svid.certificates, read.right.certificates)
    fault(at("certificate", sources.certificate)(judged.left), [...svidPaths, sources.bundle], { isServing })
  }
  const svid = Either.isRight(judged) ? keepSvid(last?.svid, judged.right) : last?.svid
  return {
    context: svid === undefined ? undefined : keepContext(last, svid, made.right),
    faults
  }
}
