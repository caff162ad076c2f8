import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Exit, Fiber, Scope, Stream, TestClock } from "effect"
import { failure } from "./fixture.js"
import { client, mostConnections, pacedWays, setUpRpc, turn, type Way, ways } from "./rpcFixture.js"

/** How many pieces there may be between a server and a client that does not read, in buffers of both and of the system. */
const buffered = 300

/** In each turn of the event loop the server makes at most one piece. */
const turns = (count: number) => Effect.replicateEffect(turn, count, { discard: true })

/** An endless stream whose first piece was read, and nothing more until `pull` is run again. */
const begun = Effect.fnUntraced(function* (way: Way) {
  const rpc = yield* setUpRpc(way)
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const pull = yield* Scope.extend(Stream.toPull(rpc.procedures.Endless()), scope)
  const numbers = Effect.map(pull, (pieces) => Chunk.toReadonlyArray(pieces).map((piece) => Number(piece)))
  return { ...rpc, first: yield* numbers, numbers, close: Scope.close(scope, Exit.void) }
})

for (const [name, way] of Object.entries(pacedWays)) {
  describe(`a stream over RPC over ${name}`, () => {
    it.scoped("is made no further while its client does not read, and goes on where it stopped", () =>
      Effect.gen(function* () {
        const { first, numbers, seen } = yield* begun(way)
        yield* turns(2 * buffered)
        expect(seen.made).toBeLessThan(buffered)
        const read = [...first]
        while (read.length < 2 * buffered) read.push(...(yield* numbers))
        expect(read).toEqual(read.map((_, index) => index + 1))
      })
    )

    it.scoped("ends at the server when its client is interrupted, also one that does not read", () =>
      Effect.gen(function* () {
        const { close, procedures, seen } = yield* begun(way)
        yield* turns(2 * buffered)
        yield* close
        yield* Deferred.await(seen.ended)
        expect(seen.made).toBeLessThan(buffered)
        expect(yield* procedures.WhoAmI()).toBe(client)
      })
    )

    it.scoped("does not hold up other calls while nobody reads it", () =>
      Effect.gen(function* () {
        const { procedures, seen } = yield* begun(way)
        yield* turns(2 * buffered)
        expect(yield* procedures.WhoAmI()).toBe(client)
        expect(yield* Stream.runCount(procedures.Count({ to: 100 }))).toBe(100)
        expect(yield* Deferred.isDone(seen.ended)).toBe(false)
      })
    )
  })
}

describe("streams over RPC over HTTP that hold every connection of their channel", () => {
  it.scoped("are named by the error of the call that waits for one, in good time", () =>
    Effect.gen(function* () {
      const { procedures } = yield* setUpRpc(ways.HTTP)
      for (let open = 0; open < mostConnections; open++) {
        const pull = yield* Stream.toPull(procedures.Endless())
        yield* pull
      }
      const call = yield* Effect.fork(failure(procedures.WhoAmI()))
      yield* Effect.yieldNow()
      yield* TestClock.adjust("10 seconds")
      const error = yield* Fiber.join(call)
      expect(error).toMatchObject({ _tag: "RpcClientError" })
      expect(`${error.cause}`).toMatch(
        /expected a free connection within 10s, all 4 connections of the channel to spiffe:\S+ are in use: 4 by POST \S+\/rpc;/
      )
    })
  )
})
