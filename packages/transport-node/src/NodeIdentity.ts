/**
 * This workload's identity from files: PEM, or a SPIFFE bundle document for bundles.
 *
 * @since 0.1.0
 */
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import { decoder, FunctionOf, NonNegativeDuration, PositiveDuration, Text } from "@agentweave/spiffe/OptionsDecoder"
import * as TrustDomain from "@agentweave/spiffe/TrustDomain"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { IdentityFileEvent } from "./IdentityFileEvent.js"
import { nodeFiles } from "./internal/files/identityFiles.js"
import * as rotation from "./internal/files/identityRotation.js"
import type { Sources } from "./internal/files/parts.js"

/**
 * Where an identity stands. Relative paths are relative to the working directory.
 *
 * @since 0.1.0
 * @category models
 */
export interface Files {
  /** PEM: the SVID, then its intermediates. */
  readonly certificate: string
  /** PEM: the SVID's private key, not encrypted. It may be the same file as `certificate`. */
  readonly key: string
  /** The own trust domain's bundle: PEM or a SPIFFE bundle document. */
  readonly bundle: string
  /** The bundles of foreign trust domains by trust domain, each PEM or a SPIFFE bundle document. Default none. */
  readonly federatedBundles?: Readonly<Record<string, string>> | undefined
  /** The trust domain the SVID must be of. Default: that of the first SVID read; a later one cannot change it. */
  readonly trustDomain?: string | undefined
}

/**
 * The files of an identity, and how they are watched.
 *
 * @since 0.1.0
 * @category models
 */
export interface FilesOptions extends Files {
  /**
   * How long changed files must rest before they are taken, so that a file written in place is not read by half. Files
   * that never rest are taken after ten such waits. Default 50 milliseconds.
   */
  readonly debounce?: Duration.DurationInput | undefined
  /** How often the files are read even if no change was noticed: watchers lose events. Default 5 seconds. */
  readonly pollInterval?: Duration.DurationInput | undefined
  /** Called for every {@link IdentityFileEvent}; the same events are logged. */
  readonly onEvent?: ((event: IdentityFileEvent) => Effect.Effect<void>) | undefined
}

const domainOf = (field: string, text: string): Either.Either<TrustDomain.TrustDomain, InvalidConfigError> =>
  Either.mapLeft(
    TrustDomain.parse(text),
    (error) => new InvalidConfigError({ config: "NodeIdentity", field, description: error.message })
  )

const files = {
  certificate: Text,
  key: Text,
  bundle: Text,
  federatedBundles: Schema.optionalWith(Schema.Record({ key: Schema.String, value: Text }), { default: () => ({}) }),
  trustDomain: Schema.optional(Text)
}

const decodeFiles = decoder("NodeIdentity", Schema.Struct(files))

const decode = decoder(
  "NodeIdentity",
  Schema.Struct({
    ...files,
    debounce: Schema.optionalWith(NonNegativeDuration, { default: () => Duration.millis(50) }),
    pollInterval: Schema.optionalWith(PositiveDuration, { default: () => Duration.seconds(5) }),
    onEvent: Schema.optionalWith(FunctionOf<NonNullable<FilesOptions["onEvent"]>>(), {
      default: () => () => Effect.void
    })
  })
)

const sourcesOf = (read: Files): Either.Either<Sources, InvalidConfigError> =>
  Either.gen(function* () {
    const federatedBundles = new Map<TrustDomain.TrustDomain, string>()
    for (const [name, path] of Object.entries(read.federatedBundles ?? {})) {
      federatedBundles.set(yield* domainOf("federatedBundles", name), path)
    }
    const trustDomain = read.trustDomain === undefined ? undefined : yield* domainOf("trustDomain", read.trustDomain)
    return { certificate: read.certificate, key: read.key, bundle: read.bundle, federatedBundles, trustDomain }
  })

const settingsOf = (options: FilesOptions): Either.Either<rotation.Settings, InvalidConfigError> =>
  Either.gen(function* () {
    const { debounce, onEvent, pollInterval, ...read } = yield* decode(options)
    return { sources: yield* sourcesOf(read), debounce, pollInterval, onEvent }
  })

/**
 * Reads an identity once. Fails with `IdentityError`, whose description names the file: `Unavailable` when one cannot be
 * read, `Malformed` when its content is not what it should be or the key is not the certificate's, `Expired`,
 * `NotYetValid` or `InvalidSvid` when the SVID would not pass the verification its peers will put it through.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { NodeIdentity } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 *
 * const whoAmI = NodeIdentity.readFiles({
 *   certificate: "/run/spiffe/svid.pem",
 *   key: "/run/spiffe/svid_key.pem",
 *   bundle: "/run/spiffe/svid_bundle.pem"
 * }).pipe(Effect.map(({ svid }) => svid.spiffeId))
 * ```
 */
export const readFiles = (options: Files): Effect.Effect<X509Context, IdentityError | InvalidConfigError> =>
  Effect.flatMap(Either.flatMap(decodeFiles(options), sourcesOf), (sources) => rotation.readOnce(nodeFiles, sources))

/**
 * The identity in files, kept current: atomic renames, Kubernetes' symbolic links and writes in place.
 *
 * A key is never paired with a certificate it does not belong to, and what is half written is not taken. A part that cannot
 * be used (the SVID, or one of the bundles) is reported and the last good one keeps serving; the others still rotate, so
 * that a broken certificate does not keep alive the trust in an authority that was removed. A removed file is such a
 * fault; to end the trust in a foreign domain, write a bundle document with no keys.
 *
 * The layer fails as {@link readFiles} does when the first read does. Later, `x509Context` fails with `IdentityError`
 * `Expired` once the SVID is past its notAfter and no successor was found.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { NodeIdentity } from "@agentweave/transport-node"
 *
 * const identity = NodeIdentity.layerFiles({
 *   certificate: "/run/spiffe/svid.pem",
 *   key: "/run/spiffe/svid_key.pem",
 *   bundle: "/run/spiffe/svid_bundle.pem",
 *   federatedBundles: { "partner.example": "/etc/spiffe/partner.json" }
 * })
 * ```
 */
export const layerFiles = (options: FilesOptions): Layer.Layer<IdentityProvider, IdentityError | InvalidConfigError> =>
  Layer.scoped(
    IdentityProvider,
    Effect.flatMap(settingsOf(options), (settings) => rotation.make(nodeFiles, settings))
  )

/**
 * {@link layerFiles} with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { NodeIdentity } from "@agentweave/transport-node"
 * import { Config } from "effect"
 *
 * const identity = NodeIdentity.layerFilesConfig({
 *   certificate: Config.string("SVID_FILE"),
 *   key: Config.string("SVID_KEY_FILE"),
 *   bundle: Config.string("BUNDLE_FILE")
 * })
 * ```
 */
export const layerFilesConfig = (
  options: Config.Config.Wrap<FilesOptions>
): Layer.Layer<IdentityProvider, IdentityError | InvalidConfigError | ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerFiles))
