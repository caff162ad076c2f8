import { SecureHttpRunner, SecureSocketRunner } from "@agentweave/cluster"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { RunnerStorage, Sharding } from "@effect/cluster"
import { describe } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { eachEnds, row } from "../../../spiffe/test/support/uninterruptible.js"
import { Counter, freePort, makeWorld, platform, runnerId } from "./world.js"

const standing = Effect.gen(function* () {
  const world = yield* makeWorld
  const port = yield* freePort
  return { ...(yield* platform(world, { port })), authorize: PeerMatcher.exactly(runnerId(port)) }
})

/** A runner whose entity is asked for something that it never gives. */
const asked = Effect.gen(function* () {
  const client = yield* Counter.client
  yield* Effect.forkDaemon(Effect.exit(client("entity").Where()))
  yield* Effect.flatMap(Sharding.Sharding, (sharding) => sharding.activeEntityCount)
})

type Needs = Layer.Layer.Context<ReturnType<typeof SecureHttpRunner.layer>>

const runner = <E>(
  name: string,
  make: (authorize: PeerMatcher.PeerMatcher) => Layer.Layer<Sharding.Sharding, E, Needs>
) =>
  row(
    name,
    Effect.map(standing, ({ authorize, layer }) => Layer.provide(make(authorize), layer)),
    asked
  )

describe("layers that open something", () => {
  eachEnds(new URL("../../src/", import.meta.url), [
    runner("SecureSocketRunner.layer", (authorize) => SecureSocketRunner.layer({ authorize })),
    runner("SecureSocketRunner.layerClientOnly", () => SecureSocketRunner.layerClientOnly()),
    runner("SecureHttpRunner.layer", (authorize) =>
      SecureHttpRunner.layer({ authorize, transport: "http", server: { gracefulShutdownTimeout: "100 millis" } })
    ),
    runner("SecureHttpRunner.layerClientOnly", () => SecureHttpRunner.layerClientOnly({ transport: "websocket" })),
    row(
      "ClusterStorage.layer",
      Effect.map(standing, ({ layer }) => layer),
      Effect.flatMap(RunnerStorage.RunnerStorage, (storage) => storage.getRunners)
    )
  ])
})
