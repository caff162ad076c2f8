import type { SecureChannel } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, FiberId, Scope } from "effect"
import * as fc from "fast-check"
import { answer, type FakeExchange } from "./fakeConnector.js"
import { a, setup } from "./fakePool.js"
import { ManualRuntime } from "./manualRuntime.js"

/** A pool whose fibers stop after every operation, so that an interruption can come between any two. */
const world = (options: Parameters<typeof setup>[0] = {}, behaviour: Parameters<typeof setup>[1] = {}) => {
  const manual = new ManualRuntime()
  const run = <A, E>(effect: Effect.Effect<A, E>): A => {
    const fiber = manual.fork(effect)
    manual.flush()
    const exit = fiber.unsafePoll()
    if (exit === null || Exit.isFailure(exit)) throw new Error(`expected a success, got ${exit}`)
    return exit.value
  }
  const made = run(setup(options, behaviour))
  manual.opsBeforeYield = 2
  return { manual, run, ...made }
}

type World = ReturnType<typeof world>

/** The ways to use a pool. */
const uses: Record<string, (pool: World["pool"]) => Effect.Effect<unknown, unknown>> = {
  client: (pool) => pool.client(a).get("/"),
  withChannel: (pool) => pool.withChannel(a, (channel) => channel.get("/")),
  "withChannel, two requests at a time": (pool) =>
    pool.withChannel(a, (channel: SecureChannel.SecureChannel) =>
      Effect.flatMap(Effect.fork(channel.get("/1")), (first) => Effect.zipRight(channel.get("/2"), Fiber.join(first)))
    ),
  acquire: (pool) => Effect.scoped(Effect.flatMap(pool.acquire(a), (channel) => channel.get("/")))
}

/** Nothing is left of a use: no lease, no waiter, no exchange; and what is open is idle. */
const checkNothingLeft = ({ manual, pool, run, wire }: World, note: string): void => {
  manual.flush()
  const { idle, inUse, opening, totalConnections, waiting } = run(pool.stats)
  assert.deepStrictEqual({ inUse, opening, waiting }, { inUse: 0, opening: 0, waiting: 0 }, note)
  assert.strictEqual(totalConnections, idle, note)
  assert.strictEqual(wire.open.length, idle, note)
  assert.strictEqual(wire.now, idle, note)
  assert.deepStrictEqual(
    wire.exchanges.map((_) => _.settled),
    wire.exchanges.map(() => 1),
    note
  )
  assert.deepStrictEqual(wire.faults, [], note)
}

describe("a use of the pool that is interrupted", () => {
  for (const [name, use] of Object.entries(uses)) {
    for (const warm of [true, false]) {
      it(`${name}, ${warm ? "on an idle" : "on a new"} connection: leaves nothing behind at any point`, () => {
        const one = world()
        let points = 0
        for (let ended = false; !ended && points < 1_000; points++) {
          one.wire.behaviour.serve = answer
          if (warm) one.run(one.pool.client(a).get("/"))
          // The peer never answers: a request that was not aborted would stay.
          one.wire.behaviour.serve = () => {}
          const fiber = one.manual.fork(use(one.pool))
          one.manual.flush(points)
          ended = one.manual.pending === 0
          fiber.unsafeInterruptAsFork(FiberId.none)
          one.manual.flush()
          const exit = fiber.unsafePoll()
          assert.isTrue(exit !== null && Exit.isInterrupted(exit), `${name} at ${points}`)
          checkNothingLeft(one, `${name} at ${points}`)
          one.run(one.pool.closeAll)
          one.wire.connections.splice(0)
        }
        assert.isAtLeast(points, 5)
      })
    }

    it(`${name}: a queue of them, each interrupted or not at some point, loses no lease`, () => {
      fc.assert(
        fc.property(
          fc.array(fc.record({ after: fc.nat(25), interrupt: fc.boolean(), break: fc.boolean() }), { maxLength: 8 }),
          (plan) => {
            const exchanges: Array<FakeExchange> = []
            const one = world(
              { maxConnectionsPerTarget: 2, acquireTimeout: "1 minute" },
              { serve: (exchange) => void exchanges.push(exchange) }
            )
            const fibers = plan.map(() => one.manual.fork(use(one.pool)))
            plan.forEach((step, index) => {
              one.manual.flush(step.after)
              if (step.interrupt) fibers[index]?.unsafeInterruptAsFork(FiberId.none)
              const exchange = exchanges.find((_) => _.settled === 0)
              if (step.break) exchange?.breakOff()
              else exchange?.respond()
            })
            one.manual.flush()
            for (let next = 0; next >= 0; ) {
              next = exchanges.findIndex((_) => _.settled === 0)
              exchanges[next]?.respond()
              one.manual.flush()
            }
            for (const fiber of fibers) assert.notStrictEqual(fiber.unsafePoll(), null)
            checkNothingLeft(one, "at the end")
            assert.isAtMost(one.wire.peak, 2)
          }
        ),
        { numRuns: 80, seed: 7 }
      )
    })
  }
})

describe("a connection that comes back while somebody is about to wait for one", () => {
  for (const [name, use] of Object.entries(uses)) {
    it(`${name}: reaches him at any point`, () => {
      const one = world({ maxConnectionsPerTarget: 1, acquireTimeout: "1 minute" })
      for (let points = 0; points < 60; points++) {
        const scope = one.run(Scope.make())
        one.run(Scope.extend(one.pool.acquire(a), scope))
        const fiber = one.manual.fork(use(one.pool))
        one.manual.flush(points)
        one.run(Scope.close(scope, Exit.void))
        const exit = fiber.unsafePoll()
        assert.isTrue(exit !== null && Exit.isSuccess(exit), `${name} at ${points}`)
        checkNothingLeft(one, `${name} at ${points}`)
      }
      assert.strictEqual(one.wire.connections.length, 1)
    })
  }
})

describe("timers", () => {
  it("however many wait, one fiber sleeps until the next deadline, and none when nobody waits any more", () => {
    const one = world({ maxConnectionsPerTarget: 1, acquireTimeout: "1 minute" })
    const idle = one.manual.clock.sleeping
    const fibers = Array.from({ length: 5 }, () =>
      one.manual.fork(Effect.scoped(one.pool.acquire(a).pipe(Effect.zipRight(Effect.never))))
    )
    one.manual.flush()
    assert.strictEqual(one.run(one.pool.stats).waiting, 4)
    assert.strictEqual(one.manual.clock.sleeping, idle + 1)
    for (const fiber of fibers) fiber.unsafeInterruptAsFork(FiberId.none)
    one.manual.flush()
    one.manual.advance(60_000)
    one.manual.flush()
    assert.strictEqual(one.manual.clock.sleeping, idle)
  })
})

describe("requests that wait for the connection of another", () => {
  /** One that holds the only connection until it is answered, and others behind it. */
  const queue = (count: number) => {
    const held: Array<FakeExchange> = []
    const one = world(
      { maxConnectionsPerTarget: 1, maxWaiting: count, acquireTimeout: "1 minute" },
      { serve: (exchange) => held.push(exchange) }
    )
    const get = (path: string) => one.manual.fork(Effect.map(one.pool.client(a).get(path), ({ status }) => status))
    const first = get("/first")
    one.manual.flush()
    const others = Array.from({ length: count }, (_, i) => get(`/${i}`))
    one.manual.flush()
    return { ...one, held, first, others }
  }

  it("the next of them is sent in the call in which that one ends, first come first", () => {
    const { held, manual, others } = queue(2)
    assert.deepStrictEqual(
      held.map(({ path }) => path),
      ["/first"]
    )
    held[0]?.respond()
    assert.deepStrictEqual(
      held.map(({ path }) => path),
      ["/first", "/0"]
    )
    held[1]?.respond()
    manual.flush()
    held[2]?.respond()
    manual.flush()
    assert.deepStrictEqual(
      others.map((fiber) => fiber.unsafePoll()),
      [Exit.succeed(200), Exit.succeed(200)]
    )
  })

  it("all are answered, where ten thousand of them are answered as soon as they are sent", () => {
    const one = queue(10_000)
    one.wire.behaviour.serve = answer
    one.held[0]?.respond()
    one.manual.flush()
    assert.isTrue(one.others.every((fiber) => Exit.isSuccess(fiber.unsafePoll() ?? Exit.die("it waits"))))
    checkNothingLeft(one, "after all")
  })

  it("a connection that throws in place of starting one is given up, and the request before has its response", () => {
    const one = queue(1)
    one.wire.behaviour.serve = () => {
      throw new Error("broken contract")
    }
    one.held[0]?.respond()
    one.manual.flush()
    assert.deepStrictEqual(one.first.unsafePoll(), Exit.succeed(200))
    assert.deepStrictEqual(one.others[0]?.unsafePoll(), Exit.die(new Error("broken contract")))
    one.wire.connections[0]?.current?.breakOff()
    assert.deepInclude(one.run(one.pool.stats), { totalConnections: 0, inUse: 0, waiting: 0 })
  })
})
