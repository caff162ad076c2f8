import { IdentityProvider } from "@agentweave/spiffe"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, type Layer, Logger, Scope, Stream } from "effect"
import { buildWithScope } from "effect/Layer"

/** One test: a source of identity hands out none when the scope of its layer has ended. */
export const providerEnd = (
  name: string,
  make: Effect.Effect<Layer.Layer<IdentityProvider.IdentityProvider, unknown>, unknown, Scope.Scope>
): void =>
  it.scopedLive(`${name} hands out no identity any more when its scope has ended, and says how to provide it`, () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const services = yield* buildWithScope(yield* make, scope)
      const provider = Context.get(services, IdentityProvider.IdentityProvider)
      const { svid } = yield* provider.x509Context
      assert.match(svid.spiffeId, /^spiffe:/)
      const running = yield* Effect.fork(Stream.runDrain(provider.changes))
      yield* Effect.yieldNow()
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(running)
      const error = yield* Effect.flip(provider.x509Context)
      assert.deepInclude(error, { _tag: "IdentityError", reason: "Unavailable", isRetryable: false })
      assert.include(error.message, "provide its layer around the whole use of what needs an identity")
      assert.strictEqual(yield* Stream.runCount(provider.changes), 0)
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
  )
