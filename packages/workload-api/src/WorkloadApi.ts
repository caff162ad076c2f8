/**
 * This workload's identity from the SPIFFE Workload API.
 *
 * @since 0.1.0
 */
import { IdentityProvider, type InvalidConfigError, OptionsDecoder, PeerVerifier, SpiffeId } from "@agentweave/spiffe"
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { hasProperty } from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type { InvalidEndpointError } from "./InvalidEndpointError.js"
import * as provider from "./internal/provider.js"
import * as update from "./internal/updateReader.js"
import type { SvidSelection } from "./internal/updateReceiver.js"
import * as WorkloadApiClient from "./WorkloadApiClient.js"
import type { WorkloadApiError } from "./WorkloadApiError.js"
import type { WorkloadApiEvent } from "./WorkloadApiEvent.js"
import * as WorkloadEndpoint from "./WorkloadEndpoint.js"
import { defaultLimits, type X509SvidMessage } from "./WorkloadMessage.js"

/**
 * How the agent does; how our identity does is the state that `IdentityMonitor` of `@agentweave/transport` has.
 *
 * - `Healthy`: its stream is up, and its last update was good.
 * - `Degraded`: it has not answered yet, is away, has no identity for us, or its last update cannot be used. The last good
 *   identity serves until it expires.
 *
 * @since 0.1.0
 * @category models
 */
export type AgentHealth = "Healthy" | "Degraded"

/**
 * An identity source with the health of its agent. {@link layer} provides it together with `IdentityProvider`, of which it
 * is the same instance.
 *
 * @since 0.1.0
 * @category tags
 */
export class WorkloadApi extends Context.Tag("@agentweave/workload-api/WorkloadApi")<
  WorkloadApi,
  Context.Tag.Service<IdentityProvider.IdentityProvider> & {
    readonly agentHealth: Effect.Effect<AgentHealth>
  }
>() {}

/**
 * Which of several SVIDs is this program's: the one with a hint, or the one with a SPIFFE ID. Of several that match it is
 * the first.
 *
 * @since 0.1.0
 * @category models
 */
export type Selection = SvidSelection

/**
 * Options of an identity provider over the Workload API.
 *
 * @since 0.1.0
 * @category models
 */
export interface ProviderOptions {
  /**
   * The SVID to use. Default: the agent's first. An update that is good but lacks the one selected withdraws the
   * identity: another one is never taken in its place.
   */
  readonly select?: Selection | undefined
  /**
   * How long callers wait for the first identity; after it they are told `IdentityError` `Unavailable`, and the agent is
   * still being asked. Default 30 seconds.
   */
  readonly initialTimeout?: Duration.DurationInput | undefined
  /**
   * How long a call may take to bring its first answer, which the standard wants without delay; after it the agent is
   * called again. Default 30 seconds.
   */
  readonly responseTimeout?: Duration.DurationInput | undefined
  /**
   * When to call the agent again after a stream ended; it begins anew with every good update. Default
   * {@link reconnectSchedule}, and while no valid identity is held at most one to two seconds, at random.
   */
  readonly reconnectSchedule?: Schedule.Schedule<unknown, WorkloadApiError> | undefined
  /**
   * Told of everything that becomes of the identity, in order, before the next message is read: it should not take long.
   * Its failures are logged and change nothing. Every event is logged besides.
   */
  readonly onEvent?: ((event: WorkloadApiEvent) => Effect.Effect<void>) | undefined
  /** Most SVIDs an update may have. Default 100. */
  readonly maxSvids?: number | undefined
  /** Most federated bundles an update may have. Default 1,000. */
  readonly maxBundles?: number | undefined
  /** Most authorities a bundle may have. Default 100. */
  readonly maxAuthorities?: number | undefined
}

/**
 * Options of the identity provider and of its connection to the agent.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends ProviderOptions, WorkloadApiClient.Options {
  /**
   * The largest message to take, in bytes. Default: what `maxSvids` and `maxBundles` need, see
   * `WorkloadApiClient.messageBytesFor`.
   */
  readonly maxMessageBytes?: number | undefined
  /** Where the agent is. Default: what `SPIFFE_ENDPOINT_SOCKET` says, read with Effect's `Config`. */
  readonly endpoint?: string | undefined
}

/**
 * The delay before attempt n (from 0) is 100 ms doubled n times and at most 30 seconds, of which a random half to the
 * whole is waited. It never ends.
 *
 * @since 0.1.0
 * @category constants
 */
export const reconnectSchedule: Schedule.Schedule<number> = Schedule.forever.pipe(
  Schedule.addDelay((attempt) => Duration.millis(Math.min(100 * 2 ** Math.min(attempt, 20), 30_000))),
  Schedule.jitteredWith({ min: 0.5, max: 1 })
)

const { FunctionOf, NonNegativeDuration, NumberIn, PositiveDuration, ValueOf } = OptionsDecoder

const isSelection = (input: unknown): input is Selection =>
  (hasProperty(input, "hint") && typeof input.hint === "string") ||
  (hasProperty(input, "spiffeId") && SpiffeId.isSpiffeId(input.spiffeId))

const providerFields = {
  select: Schema.optional(ValueOf("a hint or a spiffeId", isSelection)),
  initialTimeout: Schema.optionalWith(NonNegativeDuration, { default: () => Duration.seconds(30) }),
  responseTimeout: Schema.optionalWith(PositiveDuration, { default: () => Duration.seconds(30) }),
  reconnectSchedule: Schema.optional(
    ValueOf("a Schedule", (input): input is NonNullable<ProviderOptions["reconnectSchedule"]> =>
      Schedule.isSchedule(input)
    )
  ),
  onEvent: Schema.optionalWith(FunctionOf<NonNullable<ProviderOptions["onEvent"]>>(), {
    default: () => () => Effect.void
  }),
  maxSvids: Schema.optionalWith(NumberIn(1), { default: () => defaultLimits.maxSvids }),
  maxBundles: Schema.optionalWith(NumberIn(0), { default: () => defaultLimits.maxBundles }),
  maxAuthorities: Schema.optionalWith(NumberIn(1), { default: () => 100 })
}

const ProviderSettings = Schema.Struct(providerFields)

const decodeProvider = OptionsDecoder.decoder("WorkloadApi", ProviderSettings)

const decode = OptionsDecoder.decoder(
  "WorkloadApi",
  Schema.Struct({
    ...providerFields,
    maxMessageBytes: Schema.optional(NumberIn(1)),
    endpoint: Schema.optional(Schema.String)
  })
)

/** Whether an SVID, as it came, is the one selected. */
const selects =
  (select: Selection | undefined) =>
  ({ hint, spiffeId }: X509SvidMessage, index: number): boolean => {
    if (select === undefined) return index === 0
    return "hint" in select ? hint === select.hint : spiffeId === select.spiffeId
  }

/**
 * The identity from a client that is given: the layer under {@link layer}, for another transport or a test.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { WorkloadApi, WorkloadApiClient, WorkloadApiError } from "@agentweave/workload-api"
 * import { Layer, Stream } from "effect"
 *
 * // An agent that knows nobody: callers of the identity are told so.
 * const denied = Stream.fail(new WorkloadApiError.WorkloadApiError({ reason: "PermissionDenied", description: "no entry" }))
 *
 * const identity = WorkloadApi.layerClient({ initialTimeout: "5 seconds" }).pipe(
 *   Layer.provide(Layer.succeed(WorkloadApiClient.WorkloadApiClient, { x509Svids: denied, x509Bundles: denied }))
 * )
 * ```
 */
export const layerClient = (
  options: ProviderOptions = {}
): Layer.Layer<
  IdentityProvider.IdentityProvider | WorkloadApi,
  InvalidConfigError.InvalidConfigError,
  WorkloadApiClient.WorkloadApiClient
> => Layer.unwrapEffect(Effect.map(decodeProvider(options), ofClient))

const ofClient = (
  settings: typeof ProviderSettings.Type
): Layer.Layer<
  IdentityProvider.IdentityProvider | WorkloadApi,
  InvalidConfigError.InvalidConfigError,
  WorkloadApiClient.WorkloadApiClient
> =>
  Layer.scopedContext(
    Effect.gen(function* () {
      const client = yield* WorkloadApiClient.WorkloadApiClient
      const verifier = yield* PeerVerifier.make({ cacheSize: 16 })
      const { maxAuthorities, maxBundles, maxSvids } = settings
      const limits = { maxSvids, maxBundles, maxAuthorities }
      const made = yield* provider.make({
        messages: client.x509Svids,
        read: (message, context) =>
          update.read(message, { ...context, limits, verifier, isOurs: selects(settings.select) }),
        select: settings.select,
        initialTimeout: settings.initialTimeout,
        responseTimeout: settings.responseTimeout,
        reconnectSchedule: settings.reconnectSchedule ?? reconnectSchedule,
        hurriesWithoutIdentity: settings.reconnectSchedule === undefined,
        onEvent: settings.onEvent
      })
      return Context.make(WorkloadApi, made).pipe(Context.add(IdentityProvider.IdentityProvider, made))
    })
  )

/** An address from `Config`; that there is none, or that nobody can tell, is a broken rule too. */
const fromEnvironment: Effect.Effect<WorkloadEndpoint.WorkloadEndpoint, InvalidEndpointError> = Config.string(
  WorkloadEndpoint.variable
).pipe(
  Effect.matchEffect({
    onFailure: (error) =>
      ConfigError.isMissingDataOnly(error)
        ? WorkloadEndpoint.parse("")
        : WorkloadEndpoint.refuse("Unreadable", String(error)),
    onSuccess: WorkloadEndpoint.parse
  })
)

/**
 * The identity the SPIFFE Workload API gives to this workload, kept up to date.
 *
 * The layer itself fails only when the address is invalid or cannot be read from configuration, or an option breaks a rule
 * (`InvalidConfigError`); it does not wait for the agent. `x509Context` does, for at most `initialTimeout`; later it answers at once: the newest snapshot, or an `IdentityError` `Unavailable`, `Withdrawn`,
 * `Expired` or `NotYetValid`. `changes` fails with the same error when the identity is lost; subscribed again, it begins
 * with the answer `x509Context` has then.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { IdentityProvider } from "@agentweave/spiffe"
 * import { WorkloadApi } from "@agentweave/workload-api"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const identity = yield* IdentityProvider.IdentityProvider
 *   const { svid } = yield* identity.x509Context
 *   yield* Effect.log(`I am ${svid.spiffeId}`)
 * }).pipe(Effect.provide(WorkloadApi.layer({ endpoint: "unix:///run/spire/agent.sock" })))
 * ```
 */
export const layer = (
  options: Options = {}
): Layer.Layer<
  IdentityProvider.IdentityProvider | WorkloadApi,
  InvalidEndpointError | InvalidConfigError.InvalidConfigError
> =>
  Layer.unwrapEffect(
    Effect.gen(function* () {
      const { endpoint: address, maxMessageBytes, ...settings } = yield* decode(options)
      const endpoint = address === undefined ? yield* fromEnvironment : yield* WorkloadEndpoint.parse(address)
      return Layer.provide(
        ofClient(settings),
        WorkloadApiClient.layer(endpoint, {
          maxMessageBytes: maxMessageBytes ?? WorkloadApiClient.messageBytesFor(settings)
        })
      )
    })
  )

/**
 * {@link layer} with its options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { WorkloadApi } from "@agentweave/workload-api"
 * import { Config, Duration } from "effect"
 *
 * const identity = WorkloadApi.layerConfig({
 *   endpoint: Config.string("AGENT_SOCKET"),
 *   initialTimeout: Config.withDefault(Config.duration("IDENTITY_WAIT"), Duration.seconds(10))
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<
  IdentityProvider.IdentityProvider | WorkloadApi,
  InvalidEndpointError | InvalidConfigError.InvalidConfigError | ConfigError.ConfigError
> => Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
