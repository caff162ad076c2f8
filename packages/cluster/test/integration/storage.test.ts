import { ClusterStorage } from "@agentweave/cluster"
import { MachineId, Runner, RunnerAddress, RunnerStorage, ShardId, ShardingConfig } from "@effect/cluster"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { makeWorld } from "./world.js"

const openIn = (file: string) =>
  Effect.map(Layer.build(Layer.provide(ClusterStorage.layer({ file }), ShardingConfig.layerDefaults)), (services) =>
    Context.get(services, RunnerStorage.RunnerStorage)
  )

const shards = Array.from({ length: 40 }, (_, n) => ShardId.make("default", n + 1))

describe("the embedded database", () => {
  it.scopedLive("is shared: several that have it open at once write in turns, and a shard is held by one of them", () =>
    Effect.gen(function* () {
      const { file } = yield* makeWorld
      const all = yield* Effect.forEach([1, 2, 3, 4], () => openIn(file), { concurrency: "unbounded" })
      const held = yield* Effect.forEach(
        all.flatMap((storage, n) => shards.map((shard) => ({ storage, n, shard }))),
        ({ n, shard, storage }) => storage.acquire(RunnerAddress.make("runner", n + 1), [shard]),
        { concurrency: "unbounded" }
      )
      expect(held.flat()).toHaveLength(shards.length)
    })
  )

  it.scopedLive("keeps what was written when it is opened again", () =>
    Effect.gen(function* () {
      const { file } = yield* makeWorld
      const runner = Runner.make({ address: RunnerAddress.make("one", 1), groups: ["default"], weight: 1 })
      const registered = yield* Effect.scoped(Effect.flatMap(openIn(file), (storage) => storage.register(runner, true)))
      expect(registered).toBe(MachineId.make(1))
      const again = yield* openIn(file)
      expect((yield* again.getRunners).map(([{ address }]) => address.host)).toEqual(["one"])
    })
  )
})
