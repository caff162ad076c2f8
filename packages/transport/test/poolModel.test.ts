import { ConnectionPool, PeerDirectory } from "@agentweave/transport"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, type Fiber, FiberId, FiberRef, Layer, Scope } from "effect"
import * as fc from "fast-check"
import type { LeasedChannel } from "../src/internal/pool/lease.js"
import { type FakeConnection, type FakeExchange, FakeWire, identity, refused } from "./fakeConnector.js"
import { ManualRuntime } from "./manualRuntime.js"
import { type Claim, PoolModel } from "./poolModel.js"

const peers = ["a", "b", "c"].map((name) => `spiffe://example.org/${name}`)
const directory = PeerDirectory.layerStatic(
  Object.fromEntries(peers.map((peer) => [peer, `https://${peer.at(-1)}.test`]))
)
const hour = 3_600_000

/** What can happen; the number of a step chooses among what there is: a peer, a claim, an attempt, a connection. */
const actions = {
  lease: 4,
  request: 4,
  open: 6,
  "fail to open": 1,
  end: 5,
  interrupt: 2,
  "end and interrupt": 2,
  "interrupt and end": 1,
  break: 1,
  close: 1,
  invalidate: 1,
  drain: 1,
  wait: 2
}
type Action = keyof typeof actions
const step = fc.tuple(
  fc.constantFrom(...Object.entries(actions).flatMap(([name, weight]) => Array<Action>(weight).fill(name as Action))),
  fc.nat(15)
)

/** Pools of different limits; programs take turns in them, and each leaves its pool as it found it. */
const limits: ReadonlyArray<PoolModel["max"] & { readonly lingers: boolean }> = [
  { target: 1, total: 2, waiting: 3, wait: 200, idle: 100, lingers: false },
  { target: 1, total: 1, waiting: 3, wait: 70, idle: 100, lingers: true },
  { target: 2, total: 2, waiting: 2, wait: 0, idle: 60, lingers: false },
  { target: 2, total: 3, waiting: 2, wait: 200, idle: 150, lingers: true },
  { target: 2, total: 4, waiting: 4, wait: 100, idle: 60, lingers: false },
  { target: 3, total: 3, waiting: 4, wait: 300, idle: 100, lingers: true }
]
const program = fc.tuple(fc.nat(limits.length - 1), fc.array(step, { maxLength: 12 }))

/** A claim of the model and the fiber it stands for. */
interface Running {
  readonly claim: Claim
  readonly kind: "lease" | "request"
  readonly fiber: Fiber.RuntimeFiber<unknown, unknown>
  readonly scope: Scope.CloseableScope
  channel: LeasedChannel | undefined
}

interface Attempt {
  readonly running: Running
  readonly end: (result: Effect.Effect<void, ReturnType<typeof refused>>) => void
}

const currentClaim = FiberRef.unsafeMake<{ running: Running | undefined }>({ running: undefined })

/** The pool and its model, side by side. */
class World {
  readonly manual = new ManualRuntime()
  readonly wire = new FakeWire()
  readonly scope: Scope.CloseableScope
  readonly pool: ConnectionPool.ConnectionPool["Type"]
  readonly max: (typeof limits)[0]
  model: PoolModel
  all: Array<Running> = []
  attempts: Array<Attempt> = []
  programs = 0

  constructor(max: (typeof limits)[0]) {
    this.max = max
    this.model = new PoolModel(max)
    this.wire.behaviour = {
      ...this.wire.behaviour,
      lingers: max.lingers,
      serve: () => {},
      connect: () =>
        Effect.flatMap(FiberRef.get(currentClaim), ({ running }) =>
          Effect.async((resume) => {
            if (running === undefined) throw new Error("nobody asked for a connection")
            const attempt: Attempt = { running, end: resume }
            this.attempts.push(attempt)
            return Effect.sync(() => this.remove(attempt))
          })
        )
    }
    const layer = ConnectionPool.layer({
      maxConnectionsPerTarget: max.target,
      maxTotalConnections: max.total,
      maxWaiting: max.waiting,
      acquireTimeout: max.wait,
      idleTimeout: max.idle,
      cleanupInterval: 50,
      healthCheckInterval: hour,
      transport: { connectTimeout: hour }
    }).pipe(Layer.provide(Layer.mergeAll(this.wire.layer, identity, directory)))
    this.scope = this.now(Scope.make())
    this.pool = Context.get(this.now(Layer.buildWithScope(layer, this.scope)), ConnectionPool.ConnectionPool)
  }

  /** Runs an effect that does not wait. */
  now<A, E>(effect: Effect.Effect<A, E>): A {
    const fiber = this.manual.fork(effect)
    this.manual.flush()
    const exit = fiber.unsafePoll()
    if (exit === null || Exit.isFailure(exit)) throw new Error(`expected a success at once, got ${exit}`)
    return exit.value
  }

  remove(attempt: Attempt): void {
    this.attempts = this.attempts.filter((other) => other !== attempt)
  }

  start(kind: "lease" | "request", peer: string): void {
    const claim = this.model.acquire(peer)
    const scope = kind === "lease" ? Effect.runSync(Scope.make()) : this.scope
    const self: { running: Running | undefined } = { running: undefined }
    const effect =
      kind === "request"
        ? this.pool.client(peer).get("/")
        : Effect.map(Scope.extend(this.pool.acquire(peer), scope), (channel) => {
            if (self.running !== undefined) self.running.channel = channel as LeasedChannel
          })
    const fiber = this.manual.fork(Effect.zipRight(Effect.yieldNow(), Effect.locally(effect, currentClaim, self)))
    self.running = { claim, kind, fiber, scope, channel: undefined }
    this.all.push(self.running)
  }

  exchange({ fiber }: Running): FakeExchange | undefined {
    return this.wire.connections.find(({ current }) => current?.exchange.fiber === fiber)?.current
  }

  connection(running: Running): FakeConnection | undefined {
    const id = this.model.slots.find(({ claim }) => claim === running.claim)?.connection
    return this.wire.connections.find((connection) => connection.id === `c${id}`)
  }

  /** The end of a lease, or of the response. */
  end(running: Running | undefined): void {
    if (running === undefined) return
    const usable = this.connection(running)?.closed === undefined
    if (running.kind === "lease") this.manual.fork(Scope.close(running.scope, Exit.void))
    else this.exchange(running)?.respond()
    this.model.end(running.claim, "Done", usable)
  }

  interrupt(running: Running | undefined): void {
    if (running === undefined) return
    running.fiber.unsafeInterruptAsFork(FiberId.none)
    // A request that is aborted closes its connection; what is leased and not used yet goes on to the next.
    this.model.end(running.claim, "Interrupted", this.exchange(running) === undefined)
  }

  step(action: Action, on: number): void {
    const pick = <A>(among: ReadonlyArray<A>): A | undefined => among[on % Math.max(1, among.length)]
    const held = () => pick(this.all.filter(({ claim }) => claim.status === "Leased"))
    const queued = () => this.all.find(({ claim }) => claim === this.model.queue[0])
    switch (action) {
      case "lease":
      case "request":
        this.start(action, peers[on % peers.length] ?? "")
        break
      case "open":
      case "fail to open": {
        const attempt = pick(this.attempts)
        if (attempt === undefined) break
        this.remove(attempt)
        attempt.end(action === "open" ? Effect.void : Effect.fail(refused()))
        if (action === "open") this.model.opened(attempt.running.claim, this.wire.made + 1)
        else this.model.end(attempt.running.claim, "Failed", false)
        break
      }
      case "end":
        this.end(held())
        break
      case "interrupt":
        this.interrupt(pick(this.all.filter(({ claim, kind }) => claim.status !== "Leased" || kind === "request")))
        break
      case "end and interrupt": {
        // If the first one in the queue is served, he is interrupted in the same moment.
        const first = queued()
        this.end(held())
        this.interrupt(first)
        break
      }
      case "interrupt and end": {
        // The same the other way round: a fiber heeds its interruption only when it runs again.
        const first = queued()
        first?.fiber.unsafeInterruptAsFork(FiberId.none)
        this.end(held())
        if (first !== undefined) this.model.end(first.claim, "Interrupted", true)
        break
      }
      case "break": {
        const exchange = pick(this.wire.open.flatMap(({ current }) => current ?? []))
        const broken = this.all.find((running) => exchange !== undefined && this.exchange(running) === exchange)
        exchange?.breakOff()
        if (broken !== undefined) this.model.end(broken.claim, "Failed", false)
        break
      }
      case "close": {
        const connection = pick(this.wire.open.filter(({ current }) => current === undefined))
        connection?.close()
        if (connection !== undefined) this.model.closed(Number(connection.id.slice(1)))
        break
      }
      case "invalidate":
        this.manual.fork(this.pool.invalidate(peers[on % peers.length] ?? ""))
        this.model.invalidate(peers[on % peers.length] ?? "")
        break
      case "drain":
        this.wire.drain()
        break
      case "wait":
        for (let passed = 0; passed < on; passed++) this.tick()
    }
    this.manual.flush()
    this.check()
  }

  tick(): void {
    this.manual.advance(10)
    this.manual.flush()
    this.model.tick(10, this.manual.clock.now % 50 === 0)
  }

  /** What the fiber of a claim came to, in the model's words. */
  status(running: Running): Claim["status"] {
    const { claim, fiber, kind } = running
    const exit = fiber.unsafePoll()
    if (exit === null) {
      if (this.exchange(running) !== undefined) return "Leased"
      if (this.attempts.some((attempt) => attempt.running === running)) return "Opening"
      // A new connection waits for one that is not off the wire yet.
      return this.wire.lingering.length > 0 ? claim.status : "Queued"
    }
    if (Exit.isSuccess(exit)) return kind === "request" || claim.status === "Done" ? "Done" : "Leased"
    if (Cause.isInterruptedOnly(exit.cause)) return "Interrupted"
    const error = Cause.squash(exit.cause) as { readonly _tag: string; readonly limit: "Target" | "Total" | "Waiting" }
    return error._tag === "PoolExhaustedError" ? error.limit : "Failed"
  }

  check(): void {
    for (const running of this.all) {
      const { channel, claim } = running
      const status = this.status(running)
      if (status !== claim.status) assert.strictEqual(status, claim.status)
      if (status !== "Leased" || channel === undefined) continue
      const live = this.wire.open.find((connection) => connection === channel.lease.slot.pooled?.connection)
      if (live !== this.connection(running)) assert.strictEqual(live, this.connection(running))
    }
    this.all = this.all.filter(
      ({ claim: { status } }) => status === "Leased" || status === "Opening" || status === "Queued"
    )
    if (this.wire.peak > this.max.total) assert.isAtMost(this.wire.peak, this.max.total)
    if (this.wire.peakPerHost > this.max.target) assert.isAtMost(this.wire.peakPerHost, this.max.target)
    if (this.wire.faults.length > 0) assert.deepStrictEqual(this.wire.faults, [])
  }

  checkStats(): void {
    const { queue, slots } = this.model
    const { idle, totalConnections, waiting } = Effect.runSync(this.pool.stats)
    const free = slots.filter(({ claim }) => claim === undefined).length
    if (totalConnections !== slots.length || idle !== free || waiting !== queue.length) {
      assert.deepStrictEqual([totalConnections, idle, waiting], [slots.length, free, queue.length])
    }
  }

  /** Everything ends at the same time; then nothing is left. */
  finish(): void {
    for (const running of this.all) {
      if (this.exchange(running) !== undefined) this.exchange(running)?.respond()
      else if (running.claim.status === "Leased") this.manual.fork(Scope.close(running.scope, Exit.void))
      else running.fiber.unsafeInterruptAsFork(FiberId.none)
    }
    this.manual.flush()
    this.now(this.pool.closeAll)
    this.wire.drain()
    const { targetCount, totalCleanups, totalConnections, totalCreations } = Effect.runSync(this.pool.stats)
    const left = [targetCount, totalConnections, totalCreations - totalCleanups, this.wire.now, this.attempts.length]
    if (left.some((count) => count !== 0)) assert.deepStrictEqual(left, [0, 0, 0, 0, 0])
    for (const { fiber } of this.all) if (fiber.unsafePoll() === null) assert.fail("a fiber that does not end")
    while (this.manual.clock.now % 50 !== 0) this.tick()
    this.wire.connections.splice(0)
    this.all = []
    this.model = new PoolModel(this.max)
    this.programs++
  }

  /** The pool ends in the middle of things. */
  shutDown(): void {
    this.now(Scope.close(this.scope, Exit.void))
    this.wire.drain()
    this.manual.flush()
    assert.deepStrictEqual([this.wire.open.length, this.wire.now, this.attempts.length], [0, 0, 0])
    for (const { claim, fiber } of this.all) assert.notStrictEqual(fiber.unsafePoll(), null, claim.status)
    assert.deepStrictEqual(this.wire.faults, [])
  }
}

describe("ConnectionPool, against its model", () => {
  // Thousands of expected errors, and nobody looks at where they come from.
  // The seed makes every run the same one; RUNS in the environment makes it longer or shorter.
  const { stackTraceLimit } = Error
  beforeAll(() => {
    Error.stackTraceLimit = 0
  })
  afterAll(() => {
    Error.stackTraceLimit = stackTraceLimit
  })

  it("20,000 random programs: limits, order, leases and connections are as the model says", () => {
    const worlds = new Map<number, World>()
    fc.assert(
      fc.property(program, ([which, steps]) => {
        const max = limits[which]
        if (max === undefined) return
        const world = worlds.get(which) ?? new World(max)
        worlds.delete(which)
        for (const [action, on] of steps) world.step(action, on)
        world.checkStats()
        // Every now and then a pool ends with what is going on in it.
        if (world.programs >= 100) return world.shutDown()
        world.finish()
        worlds.set(which, world)
      }),
      { numRuns: Number(process.env["RUNS"] ?? 20_000), seed: 42 }
    )
  }, 120_000)
})
