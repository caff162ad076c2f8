import { ClusterStorage, SecureHttpRunner, SecureSocketRunner } from "@agentweave/cluster"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { ShardingConfig } from "@effect/cluster"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { freePort, identityOf, makeWorld, platform, runnerId } from "./world.js"

const authorize = PeerMatcher.exactly(runnerId(1))

/** Options that a program without types could give, and the field that is named. */
const broken: ReadonlyArray<readonly [title: string, options: object, field: string]> = [
  ["no authorize", {}, "authorize"],
  ["a function in place of a matcher", { authorize: () => true }, "authorize"],
  ["a field that there is not", { authorize, port: 1 }, "port"],
  ["a serialization that there is not", { authorize, serialization: "xml" }, "serialization"],
  ["no room for a message", { authorize, maxMessageSize: 0 }, "maxMessageSize"]
]

const socket = (options: object) => Reflect.apply(SecureSocketRunner.layer, undefined, [options])
const http = (options: object) => Reflect.apply(SecureHttpRunner.layer, undefined, [{ transport: "http", ...options }])

type Needs = Layer.Layer.Context<ReturnType<typeof SecureHttpRunner.layer>>

const failure = <A, E>(make: (port: number) => Layer.Layer<A, E, Needs>, hasAddress = true) =>
  Effect.gen(function* () {
    const world = yield* makeWorld
    const port = yield* freePort
    const identity = yield* identityOf(world.authority, { path: `/runner/${port}` })
    const { layer } = yield* platform(world, { port: hasAddress ? port : undefined, identity })
    return yield* Effect.flip(Layer.build(Layer.provide(make(port), layer)))
  })

const refused = (field: string) => ({ _tag: "InvalidConfigError", field })

describe("options that break a rule are refused by name", () => {
  for (const [title, options, field] of broken) {
    it.scopedLive(`of a runner: ${title}`, () =>
      Effect.gen(function* () {
        expect(yield* failure(() => socket(options))).toMatchObject(refused(field))
        expect(yield* failure(() => http(options))).toMatchObject(refused(field))
      })
    )
  }

  it.scopedLive("of a runner over HTTP: a way that there is not, a path without a slash", () =>
    Effect.gen(function* () {
      expect(yield* failure(() => http({ authorize, transport: "tcp" }))).toMatchObject(refused("transport"))
      expect(yield* failure(() => http({ authorize, path: "cluster" }))).toMatchObject(refused("path"))
    })
  )

  it.scopedLive("of its server and of its connections", () =>
    Effect.gen(function* () {
      const own = (port: number) => ({ authorize: PeerMatcher.exactly(runnerId(port)) })
      for (const [broken, field] of [
        [{ server: { maxConnections: 0 } }, "maxConnections"],
        [{ config: { connectTimeout: -1 } }, "connectTimeout"]
      ] as const) {
        const overSocket = (port: number) => SecureSocketRunner.layer({ ...own(port), ...broken })
        const overHttp = (port: number) => SecureHttpRunner.layer({ transport: "websocket", ...own(port), ...broken })
        expect(yield* failure(overSocket)).toMatchObject(refused(field))
        expect(yield* failure(overHttp)).toMatchObject(refused(field))
      }
    })
  )

  it.scopedLive("of a runner: no address of its own", () =>
    Effect.gen(function* () {
      const error = yield* failure(() => SecureSocketRunner.layer({ authorize }), false)
      expect(error).toMatchObject({ ...refused("runnerAddress"), config: "ShardingConfig" })
    })
  )

  it.scopedLive("of the embedded database: a file without a name", () =>
    Effect.gen(function* () {
      const storage = Layer.provide(ClusterStorage.layer({ file: "" }), ShardingConfig.layerDefaults)
      expect(yield* Effect.flip(Layer.build(storage))).toMatchObject(refused("file"))
    })
  )

  it.scopedLive("a database file that cannot be opened is an SqlError that names it", () =>
    Effect.gen(function* () {
      const storage = Layer.provide(
        ClusterStorage.layer({ file: "/no/such/folder/x.db" }),
        ShardingConfig.layerDefaults
      )
      const error = yield* Effect.flip(Layer.build(storage))
      expect(error).toMatchObject({ _tag: "SqlError" })
      expect(error.message).toContain("/no/such/folder/x.db")
    })
  )
})
