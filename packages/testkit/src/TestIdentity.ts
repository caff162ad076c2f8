/**
 * An identity a test holds in its hand: rotate it, take it away, give it back.
 *
 * @since 0.1.0
 */
import { IdentityError, IdentityProvider, type X509Context } from "@agentweave/spiffe"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"

/**
 * An `IdentityProvider` and the means to change what it provides.
 *
 * @since 0.1.0
 * @category models
 */
export interface TestIdentity {
  readonly provider: Context.Tag.Service<IdentityProvider.IdentityProvider>
  /** The provider as a layer. Every use of it is this same identity. */
  readonly layer: Layer.Layer<IdentityProvider.IdentityProvider>
  /** A rotation: `x509Context` gives it from now on, and `changes` emits it to every subscriber. */
  readonly set: (context: X509Context.X509Context) => Effect.Effect<void>
  /** Computes the next identity and sets it, e.g. `identity.rotate(authority.context({ path: "/api" }))`. */
  readonly rotate: <E, R>(
    next: Effect.Effect<X509Context.X509Context, E, R>
  ) => Effect.Effect<X509Context.X509Context, E, R>
  /**
   * The identity is gone: `x509Context` and `changes` fail, running subscriptions included, until the next `set`. Who
   * subscribes again after it receives the new identity.
   */
  readonly fail: (error: IdentityError.IdentityError) => Effect.Effect<void>
}

/**
 * Starts with an identity, or without one: then the provider fails with reason `Unavailable` until the first `set`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { DevAuthority, TestIdentity } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
 *   const identity = yield* TestIdentity.make(yield* authority.context({ path: "/api" }))
 *   // ... run what is tested with identity.layer, then:
 *   yield* identity.rotate(authority.context({ path: "/api" }))
 * })
 * ```
 */
export const make = Effect.fnUntraced(function* (initial?: X509Context.X509Context): Effect.fn.Return<TestIdentity> {
  const none = new IdentityError.IdentityError({
    reason: "Unavailable",
    description: "expected an identity to have been set, got none yet"
  })
  const state = yield* SubscriptionRef.make<Exit.Exit<X509Context.X509Context, IdentityError.IdentityError>>(
    initial === undefined ? Exit.fail(none) : Exit.succeed(initial)
  )
  const set = (context: X509Context.X509Context) => SubscriptionRef.set(state, Exit.succeed(context))
  const provider = IdentityProvider.IdentityProvider.of({
    x509Context: Effect.flatten(SubscriptionRef.get(state)),
    changes: Stream.mapEffect(state.changes, (exit) => exit)
  })
  return {
    provider,
    layer: Layer.succeed(IdentityProvider.IdentityProvider, provider),
    set,
    rotate: (next) => Effect.tap(next, set),
    fail: (error) => SubscriptionRef.set(state, Exit.fail(error))
  }
})
