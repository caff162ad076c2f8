import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Fiber, Stream } from "effect"
import { client, setUpRpc, ways } from "./rpcFixture.js"

for (const [name, way] of Object.entries(ways)) {
  describe(`RPC over ${name}`, () => {
    it.scoped("a middleware knows the verified caller", () =>
      Effect.gen(function* () {
        const { procedures } = yield* setUpRpc(way)
        expect(yield* procedures.WhoAmI()).toBe(client)
      })
    )

    it.scoped("streams come whole, several at a time", () =>
      Effect.gen(function* () {
        const { procedures } = yield* setUpRpc(way)
        const counts = yield* Effect.all(
          [1, 100, 1000].map((to) => Stream.runCount(procedures.Count({ to }))),
          { concurrency: "unbounded" }
        )
        expect(counts).toEqual([1, 100, 1000])
      })
    )

    it.scoped("a stream whose reader has enough ends at the server too", () =>
      Effect.gen(function* () {
        const { procedures, seen } = yield* setUpRpc(way)
        expect(Chunk.size(yield* Stream.runCollect(Stream.take(procedures.Endless(), 3)))).toBe(3)
        expect(yield* procedures.WhoAmI()).toBe(client)
        yield* Deferred.await(seen.ended)
      })
    )

    it.scoped("an interrupted call is interrupted at the server", () =>
      Effect.gen(function* () {
        const { procedures, seen } = yield* setUpRpc(way)
        const call = yield* Effect.fork(procedures.Never())
        yield* Deferred.await(seen.begun)
        yield* Fiber.interrupt(call)
        yield* Deferred.await(seen.interrupted)
        expect(yield* procedures.WhoAmI()).toBe(client)
      })
    )
  })
}
