import { forkScoped } from "@agentweave/spiffe/Background"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import { makeReporter } from "@agentweave/spiffe/IdentityProblem"
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type { TrustDomain } from "@agentweave/spiffe/TrustDomain"
import { describeLeftOut } from "@agentweave/spiffe/X509Bundle"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { BundleEndpoint } from "../../BundleEndpoint.js"
import type { BundleEndpointError } from "../../BundleEndpointError.js"
import type { BundleEndpointEvent } from "../../BundleEndpointEvent.js"
import * as polling from "./endpointState.js"
import { describeUrl } from "./endpointUrl.js"
import { type Federated, ownDomains, withFederated } from "./federatedProvider.js"
import { type FetchLimits, fetchBundle, type Get } from "./fetch.js"
import * as Problems from "./fetchProblems.js"
import { type Intervals, nextDelay } from "./refreshSchedule.js"

export interface Settings {
  readonly endpoints: ReadonlyArray<BundleEndpoint>
  readonly intervals: Intervals
  readonly limits: FetchLimits
  readonly initialWait: Duration.Duration
  readonly onEvent: (event: BundleEndpointEvent) => Effect.Effect<void>
}

const refuse = (field: string, description: string): Either.Either<never, InvalidConfigError> =>
  Either.left(new InvalidConfigError({ config: "FederatedBundles", field, description }))

/** Whether the endpoints can be those of this workload. */
const check = (
  endpoints: ReadonlyArray<BundleEndpoint>,
  context: X509Context
): Either.Either<void, InvalidConfigError> => {
  const own = ownDomains(context)
  const seen = new Set<TrustDomain>()
  for (const { bundle, endpointId, trustDomain } of endpoints) {
    if (own.has(trustDomain)) {
      return refuse("endpoints", `expected foreign trust domains, got ${trustDomain}, our own`)
    }
    if (seen.has(trustDomain))
      return refuse("endpoints", `expected one endpoint a trust domain, got two for ${trustDomain}`)
    seen.add(trustDomain)
    const selfServing = endpointId !== undefined && SpiffeId.trustDomain(endpointId) === trustDomain
    if (selfServing && bundle === undefined && !context.bundles.bundles.has(trustDomain)) {
      return refuse("endpoints", `expected a bundle to verify ${endpointId} with the first time, got none`)
    }
  }
  return Either.right(undefined)
}

/** Logs an event and hands it to the caller's hook, whose defects do not stop the polling. */
const reporter =
  (onEvent: Settings["onEvent"]) =>
  (event: BundleEndpointEvent): Effect.Effect<void> => {
    const { _tag, ...fields } = event
    const log =
      _tag === "BundleFetchFailed"
        ? Effect.logWarning(_tag)
        : event._tag === "BundleFetched" && event.changed
          ? Effect.logInfo(_tag)
          : Effect.logDebug(_tag)
    return Effect.zipRight(
      Effect.annotateLogs(log, fields),
      Effect.catchAllCause(
        Effect.suspend(() => onEvent(event)),
        (cause) => Effect.logWarning("the onEvent hook of a bundle endpoint failed", cause)
      )
    )
  }

const describe = (
  state: polling.Endpoint,
  result: Either.Either<unknown, BundleEndpointError>,
  changed: boolean,
  delay: Duration.Duration
): BundleEndpointEvent => {
  const common = {
    trustDomain: state.endpoint.trustDomain,
    url: describeUrl(state.endpoint.url),
    nextInMillis: Math.round(Duration.toMillis(delay))
  }
  if (Either.isLeft(result)) {
    const { description, reason, url } = result.left
    return { _tag: "BundleFetchFailed", ...common, url, reason, description, failures: state.failures }
  }
  const leftOut = state.bundle && describeLeftOut(state.bundle.x509Bundle)
  return {
    _tag: "BundleFetched",
    ...common,
    changed,
    ...(state.bundle?.sequence === undefined ? undefined : { sequence: String(state.bundle.sequence) }),
    generation: state.bundle?.x509Bundle.generation ?? "",
    authorities: state.bundle?.x509Bundle.authorities.length ?? 0,
    ...(leftOut === undefined ? undefined : { leftOut })
  }
}

/**
 * A provider with the bundles of the endpoints, each polled on its own. `connect` makes the way to ask them; it is given
 * the provider itself, since an endpoint is verified against the bundles known by then.
 */
export const make = Effect.fnUntraced(function* <E, R>(
  inner: Context.Tag.Service<IdentityProvider>,
  settings: Settings,
  connect: (provider: Context.Tag.Service<IdentityProvider>) => Effect.Effect<Get, E, R>
): Effect.fn.Return<Context.Tag.Service<IdentityProvider>, E | IdentityError | InvalidConfigError, R | Scope.Scope> {
  const { endpoints, initialWait, intervals, limits, onEvent } = settings
  yield* check(endpoints, yield* inner.x509Context)
  const report = reporter(onEvent)
  const federated = yield* SubscriptionRef.make<Federated>(
    new Map(
      endpoints.flatMap(({ bundle, trustDomain }) => (bundle === undefined ? [] : [[trustDomain, bundle.x509Bundle]]))
    )
  )
  const { problems, report: reportProblem } = yield* makeReporter
  const closed = yield* Deferred.make<void>()
  const provider = withFederated(inner, federated, problems, closed)
  const get = yield* connect(provider)

  const publish = (state: polling.Endpoint): Effect.Effect<boolean> =>
    SubscriptionRef.modify(federated, (before) => {
      const bundle = state.bundle?.x509Bundle
      if (bundle === undefined || before.get(bundle.trustDomain)?.generation === bundle.generation) {
        return [false, before]
      }
      return [true, new Map(before).set(bundle.trustDomain, bundle)]
    })

  const poll = Effect.fnUntraced(function* (endpoint: BundleEndpoint, attempted: Deferred.Deferred<void>) {
    let state = polling.initial(endpoint)
    let told = Problems.initial
    while (true) {
      const result = Either.flatMap(yield* Effect.either(fetchBundle(endpoint, get, limits)), (bundle) =>
        polling.accept(state, bundle)
      )
      state = Either.getOrElse(result, () => polling.reject(state))
      const changed = Either.isRight(result) && (yield* publish(state))
      const delay = nextDelay(state, intervals, yield* Random.next)
      const event = describe(state, result, changed, delay)
      const [toldNow, problem] = Problems.step(told, event)
      told = toldNow
      if (problem !== undefined) yield* reportProblem(problem)
      yield* report(event)
      yield* Deferred.succeed(attempted, undefined)
      yield* Effect.sleep(delay)
    }
  })

  const attempts = yield* Effect.forEach(endpoints, (endpoint) =>
    Effect.gen(function* () {
      const attempted = yield* Deferred.make<void>()
      yield* forkScoped(poll(endpoint, attempted))
      return Deferred.await(attempted)
    })
  )
  // Interruptible, so that the limit holds where the layer is built in an uninterruptible region too.
  yield* Effect.timeoutOption(Effect.interruptible(Effect.all(attempts, { discard: true })), initialWait)
  yield* Effect.addFinalizer(() => Deferred.succeed(closed, undefined))
  return provider
})
