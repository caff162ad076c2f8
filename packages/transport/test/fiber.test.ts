import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Fiber, FiberId, FiberRef, TestClock, Tracer } from "effect"
import {
  async,
  clockOf,
  fiberRefOf,
  isInterruptible,
  mayHaveNews,
  serviceOf,
  withFiber
} from "../src/internal/fiber.js"

class Given extends Context.Tag("test/Given")<Given, number>() {}
class WithDefault extends Context.Reference<WithDefault>()("test/WithDefault", { defaultValue: () => 7 }) {}

describe("the parts of Effect's fiber that the transport reads", () => {
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

  it.effect("whether an effect can be interrupted is told as it is where it begins", () =>
    Effect.gen(function* () {
      const flag = withFiber((_, status) => Effect.succeed(isInterruptible(status)))
      const flags = Effect.all([
        Effect.interruptible(flag),
        Effect.uninterruptible(flag),
        Effect.uninterruptibleMask((restore) => restore(flag))
      ])
      assert.deepStrictEqual(yield* Effect.interruptible(flags), [true, false, true])
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

  it.effect("a fiber that waits for a callback goes on with its first result, given at once or later", () =>
    Effect.gen(function* () {
      const now = async<number, never>((resume) => {
        resume(Effect.succeed(1))
        resume(Effect.succeed(2))
      })
      assert.strictEqual(yield* now, 1)
      let later = (_result: Effect.Effect<number, string>): void => {}
      const fiber = yield* Effect.fork(
        async<number, string>((resume) => {
          later = resume
        })
      )
      yield* Effect.yieldNow()
      assert.isNull(fiber.unsafePoll())
      later(Effect.fail("refused"))
      later(Effect.succeed(3))
      assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.fail("refused"))
    })
  )

  it.effect("what is thrown while a callback is registered is a defect", () =>
    Effect.gen(function* () {
      const broken = async<never, never>((_resume) => {
        throw new Error("broken")
      })
      const exit = yield* Effect.exit(broken)
      assert.deepStrictEqual(exit, Exit.die(new Error("broken")))
    })
  )

  it.effect("a fiber that waits for a callback can be interrupted, and not where it is uninterruptible", () =>
    Effect.gen(function* () {
      const registered: Array<(result: Effect.Effect<string>) => void> = []
      const wait = async<string, never>((resume) => {
        registered.push(resume)
      })
      const interrupted = yield* Effect.fork(wait)
      const goesOn = yield* Effect.fork(Effect.uninterruptible(Effect.exit(wait)))
      yield* Effect.yieldNow()
      for (const fiber of [interrupted, goesOn]) fiber.unsafeInterruptAsFork(FiberId.none)
      assert.isTrue(Exit.isInterrupted(yield* Fiber.await(interrupted)))
      assert.isNull(goesOn.unsafePoll())
      for (const resume of registered) resume(Effect.succeed("resumed"))
      assert.isNotNull(yield* Fiber.await(goesOn))
    })
  )

  it("a callback is waited for in one step of the fiber", () => {
    assert.propertyVal(
      async(() => {}),
      "_op",
      "Async"
    )
  })

  it.effect("a fiber that waits has news from when it is told of its interruption until it acts on it", () =>
    Effect.gen(function* () {
      let end = (_result: Effect.Effect<void>): void => {}
      const wait = async<void, never>((resume) => {
        end = resume
      })
      const fiber = yield* Effect.fork(Effect.uninterruptible(wait))
      yield* Effect.yieldNow()
      assert.isFalse(mayHaveNews(fiber))
      fiber.unsafeInterruptAsFork(FiberId.none)
      assert.isTrue(mayHaveNews(fiber))
      yield* Effect.yieldNow()
      assert.isFalse(mayHaveNews(fiber))
      end(Effect.void)
      yield* Fiber.await(fiber)
    })
  )
})
