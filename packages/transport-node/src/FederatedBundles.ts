/**
 * The bundles of foreign trust domains, fetched from where they publish them and kept current (SPIFFE_Federation).
 *
 * @since 0.1.0
 */
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import {
  DurationIn,
  decoder,
  FunctionOf,
  NonNegativeDuration,
  NumberIn,
  PositiveDuration,
  Text
} from "@agentweave/spiffe/OptionsDecoder"
import type { AuditLog } from "@agentweave/transport/AuditLog"
import type { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as BundleEndpoint from "./BundleEndpoint.js"
import type { BundleEndpointEvent } from "./BundleEndpointEvent.js"
import { layerOneSided } from "./internal/client/connector.js"
import { getSpiffe, getWeb } from "./internal/federation/clients.js"
import type { Get } from "./internal/federation/fetch.js"
import * as federation from "./internal/federation/poller.js"

/**
 * Options of the federated bundles: their endpoints and how often they are fetched.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** At most one a trust domain, and none of our own. */
  readonly endpoints: ReadonlyArray<BundleEndpoint.Options>
  /** How often a bundle without a refresh hint is fetched. Default 5 minutes. */
  readonly refreshInterval?: Duration.DurationInput | undefined
  /** A shorter hint is taken as this. Default 1 minute. */
  readonly minRefreshInterval?: Duration.DurationInput | undefined
  /** A longer hint is taken as this: it bounds how long a revoked authority is still trusted. Default 1 hour. */
  readonly maxRefreshInterval?: Duration.DurationInput | undefined
  /**
   * The delay after the first failed attempt, doubled with each, as long as no bundle has been fetched. Once one has, a
   * failed refresh waits for the next. Default 5 seconds.
   */
  readonly retryBaseDelay?: Duration.DurationInput | undefined
  /** The limit of one attempt. Default 30 seconds. */
  readonly timeout?: Duration.DurationInput | undefined
  /** The largest document that is read. Default 1 MiB. */
  readonly maxBytes?: number | undefined
  /** How long the layer waits for the first attempts before it goes on without their bundles. Default 5 seconds. */
  readonly initialWait?: Duration.DurationInput | undefined
  /** The authorities, PEM, that `https_web` endpoints are verified with. Default: those of Node, the public web's. */
  readonly webAuthorities?: string | undefined
  /** Called for every {@link BundleEndpointEvent}; the same events are logged. */
  readonly onEvent?: ((event: BundleEndpointEvent) => Effect.Effect<void>) | undefined
}

const Settings = Schema.Struct({
  /** Each is read by `BundleEndpoint.make`. */
  endpoints: Schema.Array(Schema.Unknown),
  refreshInterval: Schema.optionalWith(DurationIn("1 second"), { default: () => Duration.minutes(5) }),
  minRefreshInterval: Schema.optionalWith(DurationIn("1 second"), { default: () => Duration.minutes(1) }),
  maxRefreshInterval: Schema.optionalWith(DurationIn("1 second"), { default: () => Duration.hours(1) }),
  retryBaseDelay: Schema.optionalWith(DurationIn("1 second"), { default: () => Duration.seconds(5) }),
  timeout: Schema.optionalWith(PositiveDuration, { default: () => Duration.seconds(30) }),
  maxBytes: Schema.optionalWith(NumberIn(1), { default: () => 1024 * 1024 }),
  initialWait: Schema.optionalWith(NonNegativeDuration, { default: () => Duration.seconds(5) }),
  webAuthorities: Schema.optional(Text),
  onEvent: Schema.optionalWith(FunctionOf<NonNullable<Options["onEvent"]>>(), { default: () => () => Effect.void })
}).pipe(
  Schema.filter(({ maxRefreshInterval, minRefreshInterval }) =>
    Duration.lessThan(maxRefreshInterval, minRefreshInterval)
      ? {
          path: ["maxRefreshInterval"],
          message: `expected at least minRefreshInterval ${Duration.format(minRefreshInterval)}, got ${Duration.format(maxRefreshInterval)}`
        }
      : undefined
  )
)

const decode = decoder("FederatedBundles", Settings)

const settingsOf = (options: Options): Either.Either<federation.Settings, InvalidConfigError> =>
  Either.gen(function* () {
    const settings = yield* decode(options)
    return {
      endpoints: yield* Either.all(options.endpoints.map(BundleEndpoint.make)),
      intervals: {
        min: settings.minRefreshInterval,
        max: settings.maxRefreshInterval,
        refresh: settings.refreshInterval,
        retryBase: settings.retryBaseDelay
      },
      limits: { maxBytes: settings.maxBytes, timeout: settings.timeout },
      initialWait: settings.initialWait,
      onEvent: settings.onEvent
    }
  })

/** How endpoints are asked on Node: the profile decides who must be at the other end. */
const connect =
  (timeout: Duration.Duration, authorities: string | undefined) => (provider: Context.Tag.Service<IdentityProvider>) =>
    Effect.map(
      Layer.build(Layer.provideMerge(layerOneSided, Layer.succeed(IdentityProvider, provider))),
      (services): Get =>
        ({ endpointId }, url) =>
          endpointId === undefined
            ? getWeb(url, { timeout, authorities })
            : Effect.provide(getSpiffe(url, { timeout, endpointId }), services)
    )

/**
 * Adds the bundles of foreign trust domains to an identity: the `IdentityProvider` it provides is the one it needs, with
 * these bundles in every snapshot and a new snapshot for every change of one.
 *
 * Bundles are never merged: an endpoint gives the bundle of the one trust domain it is configured for, in place of any
 * other the inner provider has for it, and never that of a trust domain we are a member of. A bundle is fetched as often as
 * its refresh hint says; its sequence number never goes back; and when it cannot be fetched the last good one stays, so
 * that an endpoint that is down takes nobody's trust away. A bundle without keys takes it away.
 *
 * Fails with `InvalidConfigError` for endpoints that cannot be right, and with `IdentityError` when there is no identity to
 * begin with. An endpoint that does not answer is reported, and does not keep the layer from being built.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { FederatedBundles, NodeIdentity } from "@agentweave/transport-node"
 * import { Layer } from "effect"
 *
 * const identity = FederatedBundles.layer({
 *   endpoints: [
 *     { profile: "https_web", trustDomain: "partner.example", url: "https://spiffe.partner.example/bundle.json" }
 *   ]
 * }).pipe(
 *   Layer.provide(
 *     NodeIdentity.layerFiles({
 *       certificate: "/run/spiffe/svid.pem",
 *       key: "/run/spiffe/svid_key.pem",
 *       bundle: "/run/spiffe/svid_bundle.pem"
 *     })
 *   )
 * )
 * ```
 */
export const layer = (
  options: Options
): Layer.Layer<IdentityProvider, IdentityError | InvalidConfigError, IdentityProvider | AuditLog> =>
  Layer.scoped(
    IdentityProvider,
    Effect.gen(function* () {
      const settings = yield* settingsOf(options)
      const inner = yield* IdentityProvider
      return yield* federation.make(inner, settings, connect(settings.limits.timeout, options.webAuthorities))
    })
  )
