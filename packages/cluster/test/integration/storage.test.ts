import { ClusterStorage } from "@agentweave/cluster"
import { MachineId, Runner, RunnerAddress, RunnerStorage, ShardId, ShardingConfig } from "@effect/cluster"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { makeWorld } from "./world.js"

const openIn = (file: string) =>
  Effect.map(Layer.build(Layer.provide(ClusterStorage.layer({ file }), ShardingConfig.layerDefaults)), (services) =>
    Context.get(services, RunnerStorage.RunnerStorage)
  )

const address = (n: number) => RunnerAddress.make("runner", n)
const shards = Array.from({ length: 20 }, (_, n) => ShardId.make("default", n + 1))

describe("the embedded database", () => {
  it.scopedLive("is shared: several that have it open at once write in turns, and a shard is held by one of them", () =>
    Effect.gen(function* () {
      const { file } = yield* makeWorld
      const all = yield* Effect.forEach([0, 1, 2, 3], () => openIn(file), { concurrency: "unbounded" })
      const held = yield* Effect.forEach(
        all,
        (storage, n) =>
          Effect.forEach(
            shards,
            (shard) => Effect.zipLeft(storage.acquire(address(n), [shard]), storage.refresh(address(n), shards)),
            { concurrency: "unbounded" }
          ),
        { concurrency: "unbounded" }
      )
      expect(held.flat(2)).toHaveLength(shards.length)
      for (const [n, storage] of all.entries()) {
        expect(yield* storage.refresh(address(n), shards)).toHaveLength(held[n]?.flat().length ?? -1)
      }
    })
  )

  it.scopedLive("keeps what was written when it is opened again", () =>
    Effect.gen(function* () {
      const { file } = yield* makeWorld
      const runner = Runner.make({ address: address(1), groups: ["default"], weight: 1 })
      const registered = yield* Effect.scoped(Effect.flatMap(openIn(file), (storage) => storage.register(runner, true)))
      expect(registered).toBe(MachineId.make(1))
      const again = yield* openIn(file)
      expect((yield* again.getRunners).map(([{ address }]) => address.port)).toEqual([1])
    })
  )
})
