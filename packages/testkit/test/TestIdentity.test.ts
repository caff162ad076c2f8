import { IdentityError, IdentityProvider, type X509Context } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"

const contexts = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const [first, second, third] = yield* Effect.all([
    authority.context({ path: "/one" }),
    authority.context({ path: "/two" }),
    authority.context({ path: "/three" })
  ])
  return { authority, first, second, third }
})

const gone = new IdentityError.IdentityError({ reason: "Withdrawn", description: "by the test" })

/** Subscribes, and gives the first `count` values once they came; `Deferred` says when the first is there. */
const follow = (identity: TestIdentity.TestIdentity, count: number) =>
  Effect.gen(function* () {
    const subscribed = yield* Deferred.make<void>()
    const fiber = yield* identity.provider.changes.pipe(
      Stream.tap(() => Deferred.succeed(subscribed, undefined)),
      Stream.take(count),
      Stream.runCollect,
      Effect.map((chunk) => Array.from(chunk, ({ svid }: X509Context.X509Context) => svid.spiffeId as string)),
      Effect.either,
      Effect.fork
    )
    yield* Deferred.await(subscribed)
    return fiber
  })

describe("TestIdentity", () => {
  it.effect("provides the newest identity, and emits the current one and then every rotation to each subscriber", () =>
    Effect.gen(function* () {
      const { authority, first, second, third } = yield* contexts
      const identity = yield* TestIdentity.make(first)
      const early = yield* follow(identity, 3)
      yield* identity.set(second)
      const late = yield* follow(identity, 2)
      expect(yield* identity.rotate(Effect.succeed(third))).toBe(third)
      expect(yield* identity.provider.x509Context).toBe(third)
      const ids = ["/one", "/two", "/three"].map(authority.id)
      expect(yield* Effect.flatten(Fiber.join(early))).toEqual(ids)
      expect(yield* Effect.flatten(Fiber.join(late))).toEqual(ids.slice(1))
    })
  )

  it.effect("fails reads and running subscriptions, until the next identity is set", () =>
    Effect.gen(function* () {
      const { first, second } = yield* contexts
      const identity = yield* TestIdentity.make(first)
      const running = yield* follow(identity, 2)
      yield* identity.fail(gone)
      expect(yield* Effect.flip(Effect.flatten(Fiber.join(running)))).toBe(gone)
      expect(yield* Effect.flip(identity.provider.x509Context)).toBe(gone)
      yield* identity.set(second)
      expect(yield* identity.provider.x509Context).toBe(second)
      expect(yield* Effect.flatten(Fiber.join(yield* follow(identity, 1)))).toEqual([second.svid.spiffeId])
    })
  )

  it.effect("is unavailable before it was given an identity, and is one and the same through its layer", () =>
    Effect.gen(function* () {
      const { first } = yield* contexts
      const identity = yield* TestIdentity.make()
      const read = Effect.flatMap(IdentityProvider.IdentityProvider, (provider) => provider.x509Context).pipe(
        Effect.provide(identity.layer)
      )
      expect((yield* Effect.flip(read)).reason).toBe("Unavailable")
      yield* identity.set(first)
      expect(yield* read).toBe(first)
    })
  )
})
