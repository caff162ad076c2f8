/**
 * Where a foreign trust domain publishes its bundle, and how that place proves to be it (SPIFFE_Federation section 5).
 *
 * @since 0.1.0
 */
import { decoder, OneOf, Text } from "@agentweave/spiffe/OptionsDecoder"
import type { SpiffeBundle } from "@agentweave/spiffe/SpiffeBundle"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as TrustDomain from "@agentweave/spiffe/TrustDomain"
import { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { endpointUrl } from "./internal/federation/endpointUrl.js"
import { parseBundle } from "./internal/federation/parse.js"

interface Common {
  /** The trust domain of the bundle. */
  readonly trustDomain: string
  /** An `https:` URL without user information. */
  readonly url: string
  /** The bundle to start with, PEM or a SPIFFE bundle document. Default none. */
  readonly bundle?: string | undefined
}

/**
 * The endpoint proves by a certificate of the public web that it is the URL's host (section 5.2.1).
 *
 * @since 0.1.0
 * @category models
 */
export interface HttpsWeb extends Common {
  readonly profile: "https_web"
}

/**
 * The endpoint proves by an X.509-SVID that it is `endpointId` (section 5.2.2). Where it serves the bundle of its own
 * trust domain, `bundle` verifies it the first time, and the newest bundle fetched from then on.
 *
 * @since 0.1.0
 * @category models
 */
export interface HttpsSpiffe extends Common {
  readonly profile: "https_spiffe"
  /** The SPIFFE ID the endpoint must have. */
  readonly endpointId: string
}

/**
 * An operator's configuration, all of it explicit: none of it can be inferred from the rest (section 7.2).
 *
 * @since 0.1.0
 * @category models
 */
export type Options = HttpsWeb | HttpsSpiffe

/**
 * An endpoint, checked.
 *
 * @since 0.1.0
 * @category models
 */
export interface BundleEndpoint {
  readonly trustDomain: TrustDomain.TrustDomain
  readonly url: URL
  /** The SPIFFE ID that the endpoint must have; `undefined` with the `https_web` profile. */
  readonly endpointId: SpiffeId.SpiffeId | undefined
  /** The bundle to start with. */
  readonly bundle: SpiffeBundle | undefined
}

const common = { trustDomain: Text, url: Text, bundle: Schema.optional(Text) }

/** The texts are read one by one. */
const decode = (options: Options): Either.Either<unknown, InvalidConfigError> =>
  options.profile === "https_spiffe" ? decodeSpiffe(options) : decodeWeb(options)

const decodeSpiffe = decoder(
  "BundleEndpoint",
  Schema.Struct({ ...common, profile: OneOf("https_spiffe"), endpointId: Text })
)

const decodeWeb = decoder("BundleEndpoint", Schema.Struct({ ...common, profile: OneOf("https_web") }))

const refused =
  (field: string) =>
  (problem: string | { readonly message: string }): InvalidConfigError =>
    new InvalidConfigError({
      config: "BundleEndpoint",
      field,
      description: typeof problem === "string" ? problem : problem.message
    })

/**
 * Checks an endpoint's parameters.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { BundleEndpoint } from "@agentweave/transport-node"
 *
 * const endpoint = BundleEndpoint.make({
 *   profile: "https_web",
 *   trustDomain: "partner.example",
 *   url: "https://spiffe.partner.example/bundle.json"
 * })
 * ```
 */
export const make = (options: Options): Either.Either<BundleEndpoint, InvalidConfigError> =>
  Either.gen(function* () {
    yield* decode(options)
    const trustDomain = yield* Either.mapLeft(TrustDomain.parse(options.trustDomain), refused("trustDomain"))
    const url = yield* Either.mapLeft(endpointUrl(options.url), refused("url"))
    const endpointId =
      options.profile === "https_spiffe"
        ? yield* Either.mapLeft(SpiffeId.parse(options.endpointId), refused("endpointId"))
        : undefined
    const bundle =
      options.bundle === undefined
        ? undefined
        : yield* Either.mapLeft(parseBundle(trustDomain, Buffer.from(options.bundle)), refused("bundle"))
    return { trustDomain, url, endpointId, bundle }
  })
