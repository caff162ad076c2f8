import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Fiber, FiberRef, Runtime, TestClock, Tracer } from "effect"
import { clockOf, fiberRefOf, runtimeOf, serviceIn, serviceOf, withFiber } from "../src/internal/fiber.js"

class Given extends Context.Tag("test/Given")<Given, number>() {}
class WithDefault extends Context.Reference<WithDefault>()("test/WithDefault", { defaultValue: () => 7 }) {}

describe("the parts of Effect's fiber that the shells read", () => {
  it.effect("an effect is made by the fiber that runs it, at each run", () =>
    Effect.gen(function* () {
      const id = withFiber((fiber) => Effect.succeed(fiber.id()))
      const [own, forked] = yield* Effect.all([Effect.fiberId, Effect.forkDaemon(id)])
      assert.deepStrictEqual(yield* id, own)
      assert.notDeepEqual(yield* forked, own)
    })
  )

  it.effect("a service that was provided is found, and no other", () =>
    Effect.gen(function* () {
      const found = withFiber((fiber) => Effect.succeed([serviceOf(fiber, Given), serviceOf(fiber, WithDefault)]))
      assert.deepStrictEqual(yield* found, [undefined, undefined])
      const provided = found.pipe(Effect.provideService(Given, 1), Effect.provideService(WithDefault, 2))
      assert.deepStrictEqual(yield* provided, [1, 2])
    })
  )

  it.effect("the span around an effect is a service of its fiber", () =>
    Effect.gen(function* () {
      const parent = withFiber((fiber) => Effect.succeed(serviceOf(fiber, Tracer.ParentSpan)))
      assert.strictEqual(yield* parent, undefined)
      const [seen, current] = yield* Effect.withSpan(Effect.all([parent, Effect.currentSpan]), "outer")
      assert.strictEqual(seen, current)
    })
  )

  it.effect("the value of a FiberRef is that of the fiber, not the initial one", () =>
    Effect.gen(function* () {
      const ref = FiberRef.unsafeMake("initial")
      const value = withFiber((fiber) => Effect.succeed(fiberRefOf(fiber, ref)))
      assert.deepStrictEqual(yield* Effect.all([value, Effect.locally(value, ref, "here"), value]), [
        "initial",
        "here",
        "initial"
      ])
    })
  )

  it.effect("a service of a context is found there", () =>
    Effect.sync(() => {
      assert.strictEqual(serviceIn(Context.empty(), Given), undefined)
      assert.strictEqual(serviceIn(Context.make(Given, 1), Given), 1)
    })
  )

  it.effect("an effect that is run beside a fiber has its services and FiberRefs, and can be interrupted", () =>
    Effect.gen(function* () {
      const ref = FiberRef.unsafeMake("initial")
      const seen = withFiber((inner) => Effect.succeed([serviceOf(inner, Given), fiberRefOf(inner, ref)]))
      const beside = withFiber((fiber) => Effect.promise(() => Runtime.runPromise(runtimeOf(fiber))(seen)))
      const provided = beside.pipe(Effect.locally(ref, "here"), Effect.provideService(Given, 1))
      assert.deepStrictEqual(yield* provided, [1, "here"])
      const forked: Effect.Effect<Fiber.RuntimeFiber<never>> = withFiber((fiber) =>
        Effect.sync(() => Runtime.runFork(runtimeOf(fiber))(Effect.never))
      )
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(yield* Effect.uninterruptible(forked))))
    })
  )

  it.effect("the clock is the fiber's own", () =>
    Effect.gen(function* () {
      const clock: Effect.Effect<Clock.Clock> = withFiber((fiber) => Effect.succeed(clockOf(fiber)))
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* clock).unsafeCurrentTimeMillis(), 3_000)
      const fixed: Clock.Clock = { ...Clock.make(), unsafeCurrentTimeMillis: () => 42 }
      assert.strictEqual((yield* Effect.withClock(clock, fixed)).unsafeCurrentTimeMillis(), 42)
    })
  )
})
