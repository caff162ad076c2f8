/**
 * The messages of the X.509-SVID profile, and their protobuf form (SPIFFE_Workload_API section 5.1, workloadapi.proto).
 *
 * @since 0.1.0
 */
import { SpiffeId, type X509Bundle, type X509Context } from "@agentweave/spiffe"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as protobuf from "./internal/protobufWire.js"
import { spiffeScheme } from "./internal/spiffeScheme.js"

/**
 * One SVID as it travels. Fields are as they came: nothing about them has been checked.
 *
 * @since 0.1.0
 * @category models
 */
export interface X509SvidMessage {
  readonly spiffeId: string
  /** DER of the chain, concatenated, the leaf first. */
  readonly x509Svid: Uint8Array
  /** PKCS#8 DER. */
  readonly x509SvidKey: Redacted.Redacted<Uint8Array>
  /** DER of the trust domain's authorities, concatenated. */
  readonly bundle: Uint8Array
  /** Empty when there is none. */
  readonly hint: string
}

/**
 * An answer of `FetchX509SVID`: always the whole truth, never a difference. Certificate revocation lists are not read.
 *
 * @since 0.1.0
 * @category models
 */
export interface X509SvidResponse {
  readonly svids: ReadonlyArray<X509SvidMessage>
  /** DER of the authorities, concatenated, by the SPIFFE ID of the foreign trust domain. */
  readonly federatedBundles: ReadonlyMap<string, Uint8Array>
}

/**
 * An answer of `FetchX509Bundles`: DER of the authorities, concatenated, by the SPIFFE ID of the trust domain.
 *
 * @since 0.1.0
 * @category models
 */
export interface X509BundlesResponse {
  readonly bundles: ReadonlyMap<string, Uint8Array>
}

/**
 * How many entries a message may have.
 *
 * @since 0.1.0
 * @category models
 */
export interface Limits {
  readonly maxSvids: number
  readonly maxBundles: number
}

/**
 * 100 SVIDs and 1,000 federated bundles.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultLimits: Limits = { maxSvids: 100, maxBundles: 1000 }

const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => Buffer.concat(parts)

const byId = (bundles: Iterable<X509Bundle.X509Bundle>): ReadonlyMap<string, Uint8Array> =>
  new Map(Array.from(bundles, (bundle) => [`${spiffeScheme}${bundle.trustDomain}`, concat(bundle.authorities)]))

/**
 * The answer of `FetchX509SVID` that delivers a snapshot: every SVID with its own trust domain's bundle, and the other
 * bundles as federated ones.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import type { X509Context } from "@agentweave/spiffe"
 * import { WorkloadMessage } from "@agentweave/workload-api"
 *
 * const answer = (context: X509Context.X509Context) =>
 *   WorkloadMessage.encodeX509SvidResponse(WorkloadMessage.toX509SvidResponse(context))
 * ```
 */
export const toX509SvidResponse = (context: X509Context.X509Context): X509SvidResponse => {
  const { bundles } = context.bundles
  const own = new Set(context.svids.map((svid) => SpiffeId.trustDomain(svid.spiffeId)))
  return {
    svids: context.svids.map((svid) => ({
      spiffeId: svid.spiffeId,
      x509Svid: concat(svid.certificates),
      x509SvidKey: Redacted.make<Uint8Array>(Redacted.value(svid.privateKey).export({ format: "der", type: "pkcs8" })),
      bundle: concat(bundles.get(SpiffeId.trustDomain(svid.spiffeId))?.authorities ?? []),
      hint: svid.hint ?? ""
    })),
    federatedBundles: byId(Array.from(bundles.values()).filter((bundle) => !own.has(bundle.trustDomain)))
  }
}

/**
 * The answer of `FetchX509Bundles` that delivers a snapshot's bundles.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import type { X509Context } from "@agentweave/spiffe"
 * import { WorkloadMessage } from "@agentweave/workload-api"
 *
 * const answer = (context: X509Context.X509Context) =>
 *   WorkloadMessage.encodeX509BundlesResponse(WorkloadMessage.toX509BundlesResponse(context))
 * ```
 */
export const toX509BundlesResponse = ({ bundles }: X509Context.X509Context): X509BundlesResponse => ({
  bundles: byId(bundles.bundles.values())
})

/**
 * Bytes that are not the message they should be, or one with more entries than the limits allow.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidMessageError extends Schema.TaggedError<InvalidMessageError>()("InvalidMessageError", {
  reason: Schema.Literal("Malformed", "LimitExceeded"),
  description: Schema.String
}) {
  /** The same bytes are refused again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.reason}: ${this.description}`
  }
}

const refusal = (problem: unknown): InvalidMessageError =>
  problem instanceof InvalidMessageError
    ? problem
    : new InvalidMessageError({
        reason: "Malformed",
        // Only the reader's own words are passed on: another error might quote the bytes, which hold a key.
        description: problem instanceof protobuf.WireError ? problem.message : "a string that is not UTF-8"
      })

const limit = (count: number, max: number, what: string): void => {
  if (count <= max) return
  throw new InvalidMessageError({ reason: "LimitExceeded", description: `expected at most ${max} ${what}, got more` })
}

const none: Uint8Array = new Uint8Array(0)

/** Parts that are not secret are copied: a view would carry along the memory of the whole message, its keys included. */
const readSvid = (message: Uint8Array): X509SvidMessage => {
  let spiffeId = ""
  let x509Svid = none
  let key = none
  let bundle = none
  let hint = ""
  protobuf.readFields(message, (field, value) => {
    if (field === 1) spiffeId = protobuf.text(value)
    else if (field === 2) x509Svid = Uint8Array.from(value)
    else if (field === 3) key = value
    else if (field === 4) bundle = Uint8Array.from(value)
    else if (field === 5) hint = protobuf.text(value)
  })
  return { spiffeId, x509Svid, x509SvidKey: Redacted.make(key), bundle, hint }
}

const readMapEntry = (message: Uint8Array, into: Map<string, Uint8Array>): void => {
  let key = ""
  let value = none
  protobuf.readFields(message, (field, bytes) => {
    if (field === 1) key = protobuf.text(bytes)
    else if (field === 2) value = Uint8Array.from(bytes)
  })
  into.set(key, value)
}

/**
 * Reads an answer of `FetchX509SVID`.
 *
 * @since 0.1.0
 * @category conversions
 */
export const decodeX509SvidResponse = (
  bytes: Uint8Array,
  limits: Limits = defaultLimits
): Either.Either<X509SvidResponse, InvalidMessageError> =>
  Either.try({
    try: () => {
      const svids: Array<X509SvidMessage> = []
      const federatedBundles = new Map<string, Uint8Array>()
      protobuf.readFields(bytes, (field, value) => {
        if (field === 1) {
          limit(svids.length + 1, limits.maxSvids, "SVIDs")
          svids.push(readSvid(value))
        } else if (field === 3) {
          readMapEntry(value, federatedBundles)
          limit(federatedBundles.size, limits.maxBundles, "federated bundles")
        }
      })
      return { svids, federatedBundles }
    },
    catch: refusal
  })

/**
 * Reads an answer of `FetchX509Bundles`.
 *
 * @since 0.1.0
 * @category conversions
 */
export const decodeX509BundlesResponse = (
  bytes: Uint8Array,
  limits: Limits = defaultLimits
): Either.Either<X509BundlesResponse, InvalidMessageError> =>
  Either.try({
    try: () => {
      const bundles = new Map<string, Uint8Array>()
      protobuf.readFields(bytes, (field, value) => {
        if (field !== 2) return
        readMapEntry(value, bundles)
        limit(bundles.size, limits.maxBundles, "bundles")
      })
      return { bundles }
    },
    catch: refusal
  })

const writeSvid = (svid: X509SvidMessage): Uint8Array =>
  protobuf.message(
    protobuf.string(1, svid.spiffeId),
    protobuf.bytes(2, svid.x509Svid),
    protobuf.bytes(3, Redacted.value(svid.x509SvidKey)),
    protobuf.bytes(4, svid.bundle),
    protobuf.string(5, svid.hint)
  )

const writeMap = (field: number, entries: ReadonlyMap<string, Uint8Array>): ReadonlyArray<Uint8Array> =>
  Array.from(entries, ([key, value]) =>
    protobuf.element(field, protobuf.message(protobuf.string(1, key), protobuf.bytes(2, value)))
  )

/**
 * The bytes of an answer of `FetchX509SVID`: redacted, for they hold private keys.
 *
 * @since 0.1.0
 * @category conversions
 */
export const encodeX509SvidResponse = (response: X509SvidResponse): Redacted.Redacted<Uint8Array> =>
  Redacted.make(
    protobuf.message(
      ...response.svids.map((svid) => protobuf.element(1, writeSvid(svid))),
      ...writeMap(3, response.federatedBundles)
    )
  )

/**
 * The bytes of an answer of `FetchX509Bundles`.
 *
 * @since 0.1.0
 * @category conversions
 */
export const encodeX509BundlesResponse = (response: X509BundlesResponse): Uint8Array =>
  protobuf.message(...writeMap(2, response.bundles))

/** A JWK set without keys (RFC 7517 section 5). */
const noKeys: Uint8Array = new TextEncoder().encode(`{"keys": []}`)

/**
 * The bytes of an answer of `FetchJWTBundles` by an endpoint that issues no JWT-SVIDs: a key set without keys for each trust
 * domain of the snapshot's SVIDs, since the answer must have at least that of the server's own (SPIFFE_Workload_API section
 * 6.2.2).
 *
 * @since 0.1.0
 * @category conversions
 */
export const encodeEmptyJwtBundlesResponse = ({ svids }: X509Context.X509Context): Uint8Array => {
  const domains = new Set(svids.map(({ spiffeId }) => SpiffeId.trustDomain(spiffeId)))
  return protobuf.message(
    ...writeMap(1, new Map(Array.from(domains, (domain) => [`${spiffeScheme}${domain}`, noKeys])))
  )
}
