/**
 * SPIFFE bundles: the JSON document in which a trust domain publishes its keys (SPIFFE_Trust_Domain_and_Bundle section 4,
 * X509-SVID section 6).
 *
 * @since 0.1.0
 */
import { createPublicKey, type JsonWebKey, X509Certificate } from "node:crypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Predicate from "effect/Predicate"
import { IdentityError } from "./IdentityError.js"
import * as authorities from "./internal/bundle/authorities.js"
import * as bundleJson from "./internal/bundle/jsonReader.js"
import * as pieces from "./internal/pieces.js"
import type { TrustDomain } from "./TrustDomain.js"
import type * as X509Bundle from "./X509Bundle.js"

/**
 * A published bundle: its X.509 authorities, and what its publisher says about freshness. The document does not name its
 * trust domain, so that whoever reads one must know whose it is.
 *
 * @since 0.1.0
 * @category models
 */
export interface SpiffeBundle {
  readonly trustDomain: TrustDomain
  /** The authorities of the `x509-svid` keys. Without any it is an empty bundle, which trusts nobody (section 4.1.3). */
  readonly x509Bundle: X509Bundle.X509Bundle
  /** `spiffe_sequence`: grows with every change of the bundle. */
  readonly sequence: bigint | undefined
  /** `spiffe_refresh_hint`: how often the publisher asks to be polled. Whole seconds. */
  readonly refreshHint: Duration.Duration | undefined
  /** How many keys were passed over: those of another use, of an unknown type, or without a certificate. */
  readonly ignoredKeys: number
}

/** Sequence numbers need 64 bits at least (section 4.1.1); a number longer than this is not a sequence number. */
const maxSequenceDigits = 40

const keyTypes: ReadonlySet<unknown> = new Set(["RSA", "EC", "OKP"])

const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$/

const describe = (value: unknown): string =>
  value === null ? "null" : Array.isArray(value) ? "an array" : value === undefined ? "none" : `a ${typeof value}`

type Read<A> = Either.Either<A, string>

const readSequence = (literal: string | undefined, value: unknown): Read<bigint | undefined> => {
  if (value === undefined || value === null) return Either.right(undefined)
  return literal !== undefined && /^\d+$/.test(literal) && literal.length <= maxSequenceDigits
    ? Either.right(BigInt(literal))
    : Either.left(`spiffe_sequence: expected an integer of at most ${maxSequenceDigits} digits, got ${describe(value)}`)
}

const readRefreshHint = (value: unknown): Read<Duration.Duration | undefined> => {
  if (value === undefined || value === null) return Either.right(undefined)
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0
    ? Either.right(Duration.seconds(value))
    : Either.left(`spiffe_refresh_hint: expected a whole number of seconds, got ${describe(value)}`)
}

/**
 * RFC 7517 section 4.7: the first certificate's key is the key the other members state, where they state one. A
 * certificate that cannot be read is not this function's business.
 */
const statesAnotherKey = (jwk: Readonly<Record<string, unknown>>, der: Uint8Array): boolean => {
  const members = Object.fromEntries(
    ["kty", "crv", "n", "e", "x", "y"].flatMap((name) => (typeof jwk[name] === "string" ? [[name, jwk[name]]] : []))
  )
  const certificate = Either.try(() => new X509Certificate(der))
  if (Object.keys(members).length === 1 || Either.isLeft(certificate)) return false
  const stated: JsonWebKey = members
  const same = Either.try(() => createPublicKey({ key: stated, format: "jwk" }).equals(certificate.right.publicKey))
  return !Either.getOrElse(same, () => false)
}

/** The kinds of one key: an authority, none of this bundle's business, or an entry that is left out for a reason. */
type Entry =
  | { readonly _tag: "Authority"; readonly certificate: Uint8Array }
  | { readonly _tag: "Ignored" }
  | { readonly _tag: "LeftOut"; readonly problem: string }

const ignored: Entry = { _tag: "Ignored" }

const leaveOut = (problem: string): Entry => ({ _tag: "LeftOut", problem })

const readKey = (jwk: unknown): Entry => {
  if (!Predicate.isRecord(jwk)) return leaveOut(`expected an object, got ${describe(jwk)}`)
  if (jwk["use"] !== "x509-svid" || !keyTypes.has(jwk["kty"])) return ignored
  const x5c = jwk["x5c"]
  if (x5c === undefined || x5c === null) return ignored
  if (!Array.isArray(x5c)) return leaveOut(`x5c: expected an array, got ${describe(x5c)}`)
  if (x5c.length === 0) return ignored
  const first: unknown = x5c[0]
  if (typeof first !== "string" || !base64.test(first)) {
    return leaveOut(`x5c[0]: expected base64, got ${describe(first)}${typeof first === "string" ? " that is not" : ""}`)
  }
  const certificate = Buffer.from(first, "base64")
  const problem = authorities.unreadable(certificate)
  if (problem !== undefined) return leaveOut(`x5c[0]: ${problem}`)
  if (statesAnotherKey(jwk, certificate)) return leaveOut("expected the key of its certificate, got another one")
  return { _tag: "Authority", certificate }
}

function* readKeys(
  trustDomain: TrustDomain,
  value: unknown
): pieces.Pieces<Read<Pick<SpiffeBundle, "x509Bundle" | "ignoredKeys">>> {
  if (!Predicate.isRecord(value)) return Either.left(`expected a JSON object, got ${describe(value)}`)
  const keys = value["keys"]
  if (!Array.isArray(keys)) return Either.left(`keys: expected an array, got ${describe(keys)}`)
  const usable: Array<Uint8Array> = []
  const leftOut: Array<X509Bundle.LeftOut> = []
  for (const [index, jwk] of keys.entries()) {
    if (index % authorities.readAtOnce === authorities.readAtOnce - 1) yield
    const entry = readKey(jwk)
    if (entry._tag === "Authority") usable.push(entry.certificate)
    if (entry._tag === "LeftOut") leftOut.push({ entry: `keys[${index}]`, problem: entry.problem })
  }
  // Without authorities it would be an empty bundle, which says that its trust domain trusts nobody.
  if (usable.length === 0 && leftOut.length > 0) return Either.left(authorities.describeLeftOut(leftOut))
  const x509Bundle = authorities.build(trustDomain, usable, leftOut)
  return Either.right({ x509Bundle, ignoredKeys: keys.length - usable.length - leftOut.length })
}

/** Reads a document in steps. */
function* read(trustDomain: TrustDomain, text: string): pieces.Pieces<Read<SpiffeBundle>> {
  const parsed = yield* bundleJson.parse(text)
  if (Either.isLeft(parsed)) return Either.left(parsed.left)
  const { literals, value } = parsed.right
  const keys = yield* readKeys(trustDomain, value)
  const document: Readonly<Record<string, unknown>> = Predicate.isRecord(value) ? value : {}
  return Either.gen(function* () {
    const { ignoredKeys, x509Bundle } = yield* keys
    const sequence = yield* readSequence(literals.get("spiffe_sequence"), document["spiffe_sequence"])
    const refreshHint = yield* readRefreshHint(document["spiffe_refresh_hint"])
    return { trustDomain, x509Bundle, sequence, refreshHint, ignoredKeys }
  })
}

const malformed = (trustDomain: TrustDomain) => (problem: string) =>
  new IdentityError({ reason: "Malformed", description: `SPIFFE bundle of ${trustDomain}: ${problem}` })

/**
 * Reads a SPIFFE bundle document as the bundle of a trust domain. Keys of another use or an unknown type are passed over,
 * as the standard asks. An `x509-svid` key whose certificate cannot be read, or is that of another key, is left out, and
 * `x509Bundle.leftOut` names it: there are never silently fewer authorities. A document that cannot be read, a name that
 * occurs twice, or entries of which none can be used are `IdentityError` `Malformed`.
 *
 * It takes some tenths of a second for a document of 1 MiB, in one piece: see {@link decode}.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SpiffeBundle, TrustDomain } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const bundle = SpiffeBundle.parse(TrustDomain.make("example.org"), `{ "spiffe_sequence": 7, "keys": [] }`)
 * console.log(Either.map(bundle, ({ sequence }) => sequence)) // 7n
 * ```
 */
export const parse = (trustDomain: TrustDomain, text: string): Either.Either<SpiffeBundle, IdentityError> =>
  Either.mapLeft(pieces.runAtOnce(read(trustDomain, text)), malformed(trustDomain))

/**
 * {@link parse} in small pieces, between which other fibers and the event loop run: for documents from elsewhere, which may
 * be large.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SpiffeBundle, TrustDomain, X509BundleSet } from "@agentweave/spiffe"
 * import { Effect } from "effect"
 *
 * const federated = (text: string) =>
 *   SpiffeBundle.decode(TrustDomain.make("partner.example"), text).pipe(
 *     Effect.map(({ x509Bundle }) => X509BundleSet.of(x509Bundle)),
 *     Effect.catchTag("IdentityError", (error) => Effect.as(Effect.logWarning(error.message), X509BundleSet.empty))
 *   )
 * ```
 */
export const decode = (trustDomain: TrustDomain, text: string): Effect.Effect<SpiffeBundle, IdentityError> =>
  Effect.flatMap(
    pieces.runInTurns(() => read(trustDomain, text)),
    Either.mapLeft(malformed(trustDomain))
  )

/**
 * A document to publish. `refreshHint` is cut to whole seconds.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SpiffeBundle, type X509Bundle } from "@agentweave/spiffe"
 *
 * const document = (x509Bundle: X509Bundle.X509Bundle) =>
 *   SpiffeBundle.make({ x509Bundle, sequence: 7n, refreshHint: "5 minutes" })
 * ```
 */
export const make = (options: {
  readonly x509Bundle: X509Bundle.X509Bundle
  readonly sequence?: bigint | undefined
  readonly refreshHint?: Duration.DurationInput | undefined
}): SpiffeBundle => ({
  trustDomain: options.x509Bundle.trustDomain,
  x509Bundle: options.x509Bundle,
  sequence: options.sequence,
  refreshHint:
    options.refreshHint === undefined
      ? undefined
      : Duration.seconds(Math.floor(Duration.toSeconds(options.refreshHint))),
  ignoredKeys: 0
})

const keyTypeOf = (algorithm: string | undefined): string =>
  algorithm === "ec" ? "EC" : algorithm?.startsWith("rsa") === true ? "RSA" : "OKP"

const toJwk = (authority: Uint8Array): Readonly<Record<string, unknown>> => {
  const { publicKey } = new X509Certificate(authority)
  const { kty = keyTypeOf(publicKey.asymmetricKeyType), ...members } = Either.getOrElse(
    Either.try(() => publicKey.export({ format: "jwk" })),
    (): JsonWebKey => ({})
  )
  return { kty, use: "x509-svid", x5c: [Buffer.from(authority).toString("base64")], ...members }
}

/**
 * The document as JSON: one `x509-svid` key an authority, without `kid` (X509-SVID section 6.1).
 *
 * @since 0.1.0
 * @category conversions
 */
export const toJson = (self: SpiffeBundle): string => {
  const members = [
    ...(self.sequence === undefined ? [] : [`"spiffe_sequence": ${self.sequence}`]),
    ...(self.refreshHint === undefined ? [] : [`"spiffe_refresh_hint": ${Duration.toSeconds(self.refreshHint)}`]),
    `"keys": ${JSON.stringify(self.x509Bundle.authorities.map(toJwk))}`
  ]
  return `{ ${members.join(", ")} }\n`
}
