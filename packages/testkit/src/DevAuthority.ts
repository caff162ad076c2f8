/**
 * An in-memory certificate authority for tests and development: one trust domain, its roots, and SVIDs for any workload.
 *
 * @since 0.1.0
 */
import {
  type IdentityError,
  IdentityProvider,
  type InvalidConfigError,
  type InvalidSpiffeIdError,
  OptionsDecoder,
  SpiffeId,
  TrustDomain,
  X509Bundle,
  X509BundleSet,
  X509Context,
  X509Svid
} from "@agentweave/spiffe"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as CertificateAuthority from "./CertificateAuthority.js"
import type { CertificateProfile } from "./CertificateProfile.js"
import type { Credentials } from "./Credentials.js"
import { KeyAlgorithms } from "./internal/mint/profileOptions.js"
import type { KeyAlgorithm } from "./KeyPair.js"
import type { MintError } from "./MintError.js"

/**
 * Marks a `DevAuthority`.
 *
 * @since 0.1.0
 * @category symbols
 */
export const TypeId: unique symbol = Symbol.for("@agentweave/testkit/DevAuthority")

/**
 * Marks a `DevAuthority`.
 *
 * @since 0.1.0
 * @category symbols
 */
export type TypeId = typeof TypeId

/**
 * A trust domain's authority, as an immutable value: rotating a root gives another authority, and the one before it goes
 * on signing as it did. Dates come from Effect's `Clock`, so that under `TestClock` they are the test's.
 *
 * @since 0.1.0
 * @category models
 */
export interface DevAuthority {
  readonly [TypeId]: TypeId
  readonly trustDomain: TrustDomain.TrustDomain
  /** The roots, newest first. The first one's hierarchy signs. */
  readonly roots: readonly [CertificateAuthority.CertificateAuthority, ...CertificateAuthority.CertificateAuthority[]]
  /** The CA that signs leaves: the lowest intermediate, or the root where there is none. */
  readonly issuer: CertificateAuthority.CertificateAuthority
  /** The roots as the trust bundle that peers verify against. */
  readonly bundle: X509Bundle.X509Bundle
  /** The SPIFFE ID of a path of this trust domain; throws on a path the grammar forbids. */
  readonly id: (path: string) => SpiffeId.SpiffeId
  /** Issues a proper SVID. A profile that makes it improper is refused by `X509Svid` with an `IdentityError`. */
  readonly issue: (options?: IssueOptions) => Effect.Effect<X509Svid.X509Svid, IssueError>
  /** Issues anything: what a faulty or hostile peer would present. */
  readonly issueRaw: (options?: IssueOptions) => Effect.Effect<Credentials, MintError>
  /** A proper SVID with this authority's bundle and those of `federatesWith`: all an `IdentityProvider` hands out. */
  readonly context: (
    options?: IssueOptions & { readonly federatesWith?: ReadonlyArray<DevAuthority> | undefined }
  ) => Effect.Effect<X509Context.X509Context, IssueError>
  /** A new root in front of the others, which stay in the bundle; new SVIDs are signed below the new root. */
  readonly rotateRoot: (
    options?: RotateOptions
  ) => Effect.Effect<DevAuthority, IssueError | InvalidConfigError.InvalidConfigError>
  /** The same authority without all roots but the newest, as after a completed roll-over. */
  readonly retireOldRoots: Effect.Effect<DevAuthority, IdentityError.IdentityError>
  /** The same signer, with any CA added to the end of the roots. */
  readonly addRoot: (
    root: CertificateAuthority.CertificateAuthority
  ) => Effect.Effect<DevAuthority, IdentityError.IdentityError>
  /** The same authority with another CA as the one that signs leaves. */
  readonly withIssuer: (issuer: CertificateAuthority.CertificateAuthority) => DevAuthority
}

/**
 * Errors of issuing an SVID.
 *
 * @since 0.1.0
 * @category errors
 */
export type IssueError = MintError | IdentityError.IdentityError

/**
 * Which workload, and what its certificate says beyond the usual. `uris`, when given, wins over `id`, and `id` over
 * `path`.
 *
 * @since 0.1.0
 * @category models
 */
export interface IssueOptions extends CertificateProfile {
  /** Path of the SPIFFE ID in this trust domain, with its leading slash. Default `/workload`. */
  readonly path?: string | undefined
  /** The entire SPIFFE ID, when it is of another trust domain. */
  readonly id?: string | undefined
  /** The Workload API's hint. Default none. */
  readonly hint?: string | undefined
}

/**
 * Options of {@link make}.
 *
 * @since 0.1.0
 * @category models
 */
export interface MakeOptions {
  /** The trust domain's name, e.g. `example.org`. */
  readonly trustDomain: string
  /** Of all keys, unless a profile says otherwise. Default `P-256`. */
  readonly keyAlgorithm?: KeyAlgorithm | undefined
  /** How many intermediate CAs stand between root and leaf. Default 0. */
  readonly intermediates?: number | undefined
  /** Default 365 days. */
  readonly rootTtl?: Duration.DurationInput | undefined
  /** Fields of the root's certificate beyond the usual ones. */
  readonly root?: CertificateProfile | undefined
  /** Fields of every intermediate's certificate beyond the usual ones. */
  readonly intermediate?: CertificateProfile | undefined
}

/**
 * Options of the root that takes over; what is left out stays as it was.
 *
 * @since 0.1.0
 * @category models
 */
export type RotateOptions = Omit<MakeOptions, "trustDomain">

type Roots = DevAuthority["roots"]

/** The profiles are checked where a certificate is made of them. */
const decode = OptionsDecoder.decoder(
  "DevAuthority",
  Schema.Struct({
    trustDomain: Schema.Unknown,
    keyAlgorithm: Schema.optional(KeyAlgorithms),
    intermediates: Schema.optional(OptionsDecoder.NumberIn(0)),
    rootTtl: Schema.optional(OptionsDecoder.PositiveDuration),
    root: Schema.optional(Schema.Unknown),
    intermediate: Schema.optional(Schema.Unknown)
  })
)

const makeHierarchy = Effect.fnUntraced(function* (trustDomain: TrustDomain.TrustDomain, options: RotateOptions) {
  yield* decode({ ...options, trustDomain })
  const root = yield* CertificateAuthority.makeRoot({
    trustDomain,
    keyAlgorithm: options.keyAlgorithm,
    ttl: options.rootTtl,
    ...options.root
  })
  let issuer = root
  for (let depth = 0; depth < (options.intermediates ?? 0); depth++) {
    issuer = yield* CertificateAuthority.makeIntermediate(issuer, { ttl: options.rootTtl, ...options.intermediate })
  }
  return { root, issuer }
})

/**
 * Credentials as an SVID: refused with an `IdentityError` unless they are proper.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toSvid = (
  credentials: Credentials,
  options: { readonly hint?: string | undefined } = {}
): Either.Either<X509Svid.X509Svid, IdentityError.IdentityError> =>
  X509Svid.fromDer({
    certificates: credentials.certificates,
    privateKey: Redacted.make(Redacted.value(credentials.privateKey).export({ type: "pkcs8", format: "der" })),
    hint: options.hint
  })

const bundleFrom = (trustDomain: TrustDomain.TrustDomain, roots: Roots) =>
  X509Bundle.fromDer(
    trustDomain,
    roots.map((root) => root.certificate)
  )

const fromParts = (parts: {
  readonly trustDomain: TrustDomain.TrustDomain
  readonly made: RotateOptions
  readonly roots: Roots
  readonly issuer: CertificateAuthority.CertificateAuthority
  readonly bundle: X509Bundle.X509Bundle
}): DevAuthority => {
  const { bundle, issuer, made, roots, trustDomain } = parts
  const issueRaw = (options: IssueOptions = {}) => {
    const { hint: _hint, id, path = "/workload", ...profile } = options
    return CertificateAuthority.issue(issuer, { uris: [id ?? `spiffe://${trustDomain}${path}`], ...profile })
  }
  const issue = (options: IssueOptions = {}): Effect.Effect<X509Svid.X509Svid, IssueError> =>
    Effect.flatMap(issueRaw(options), (credentials) => toSvid(credentials, options))
  const withRoots = (next: Roots, change: Partial<typeof parts> = {}) =>
    Effect.map(bundleFrom(trustDomain, next), (bundle) => fromParts({ ...parts, roots: next, bundle, ...change }))
  const self: DevAuthority = {
    [TypeId]: TypeId,
    trustDomain,
    roots,
    issuer,
    bundle,
    id: (path) => SpiffeId.make(`spiffe://${trustDomain}${path}`),
    issueRaw,
    issue,
    context: Effect.fnUntraced(function* ({ federatesWith = [], ...options } = {}) {
      return X509Context.make({ svid: yield* issue(options), bundles: yield* bundles([self, ...federatesWith]) })
    }),
    rotateRoot: Effect.fnUntraced(function* (options) {
      const merged = { ...made, ...options }
      const next = yield* makeHierarchy(trustDomain, merged)
      return yield* withRoots([next.root, ...roots], { made: merged, issuer: next.issuer })
    }),
    retireOldRoots: withRoots([roots[0]]),
    addRoot: (root) => withRoots([...roots, root]),
    withIssuer: (other) => fromParts({ ...parts, issuer: other })
  }
  return self
}

/**
 * A new authority with a fresh root.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { DevAuthority } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
 *   const svid = yield* authority.issue({ path: "/api", ttl: "10 minutes" })
 *   console.log(svid.spiffeId) // spiffe://example.org/api
 * })
 * ```
 */
export const make = Effect.fnUntraced(function* (
  options: MakeOptions
): Effect.fn.Return<
  DevAuthority,
  InvalidSpiffeIdError.InvalidSpiffeIdError | InvalidConfigError.InvalidConfigError | IssueError
> {
  const { trustDomain: name, ...made } = options
  const trustDomain = yield* TrustDomain.parse(name)
  const { issuer, root } = yield* makeHierarchy(trustDomain, made)
  const bundle = yield* bundleFrom(trustDomain, [root])
  return fromParts({ trustDomain, made, roots: [root], issuer, bundle })
})

/**
 * The bundles of several authorities, one a trust domain: what a workload that federates with them all is given. Two
 * authorities of one trust domain are refused with an `IdentityError`.
 *
 * @since 0.1.0
 * @category getters
 */
export const bundles = (
  authorities: ReadonlyArray<DevAuthority>
): Either.Either<X509BundleSet.X509BundleSet, IdentityError.IdentityError> =>
  X509BundleSet.make(authorities.map((authority) => authority.bundle))

/**
 * A workload's identity as a layer: one SVID, issued when the layer is built, and the bundles. For one that a test can
 * rotate, see `TestIdentity`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { DevAuthority } from "@agentweave/testkit"
 * import { AuditLog } from "@agentweave/transport"
 * import { NodeConnector } from "@agentweave/transport-node"
 * import { Effect, Layer } from "effect"
 *
 * const services = Effect.gen(function* () {
 *   const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
 *   return NodeConnector.layer.pipe(
 *     Layer.provideMerge(DevAuthority.layerIdentity(authority, { path: "/web" })),
 *     Layer.provide(AuditLog.layerMemory([]))
 *   )
 * })
 * ```
 */
export const layerIdentity = (
  authority: DevAuthority,
  options?: IssueOptions & { readonly federatesWith?: ReadonlyArray<DevAuthority> | undefined }
): Layer.Layer<IdentityProvider.IdentityProvider, IssueError> =>
  Layer.unwrapEffect(Effect.map(authority.context(options), IdentityProvider.layerStatic))
