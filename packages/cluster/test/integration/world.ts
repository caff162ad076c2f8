/** Runners, their entity and their records, for the tests in this folder: real sockets on 127.0.0.1. */
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ClusterStorage, RunnerPeers, SecureHttpRunner, SecureSocketRunner } from "@agentweave/cluster"
import type * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import { type AuditEvent, AuditLog } from "@agentweave/transport"
import * as NodeConnector from "@agentweave/transport-node/NodeConnector"
import {
  ClusterSchema,
  Entity,
  type MessageStorage,
  RunnerAddress,
  type RunnerStorage,
  Sharding,
  ShardingConfig
} from "@effect/cluster"
import { Rpc } from "@effect/rpc"
import { Context, Effect, Exit, FiberRef, HashSet, Layer, Logger, Option, Schema, Scope } from "effect"

export const host = "127.0.0.1"

/** Says which runner it lives on, and counts. */
export const Counter = Entity.make("Counter", [
  Rpc.make("Where", { success: Schema.String }),
  Rpc.make("Add", { payload: { key: Schema.String }, success: Schema.String, primaryKey: ({ key }) => key }).annotate(
    ClusterSchema.Persisted,
    true
  )
])

const isFree = (port: number): Effect.Effect<boolean> =>
  Effect.async((resume) => {
    const server = createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen(port, host, () => server.close(() => resume(Effect.succeed(true))))
  })

/** Far from those of the test processes beside this one, whose numbers are next to its own. */
let last = 20_000 + ((process.pid * 997) % 12_000)

/**
 * A port that nobody listens on, below those that the system gives to outgoing connections: a runner's address must be known
 * before it listens.
 */
export const freePort: Effect.Effect<number> = Effect.suspend(() => {
  last = last >= 31_999 ? 20_000 : last + 1
  const port = last
  return Effect.flatMap(isFree(port), (free) => (free ? Effect.succeed(port) : freePort))
})

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "cluster-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Everything soon, so that tests wait for facts and not for intervals. */
export const soon: Partial<ShardingConfig.ShardingConfig["Type"]> = {
  shardsPerGroup: 12,
  refreshAssignmentsInterval: "100 millis",
  entityMessagePollInterval: "100 millis",
  entityReplyPollInterval: "50 millis",
  sendRetryInterval: "50 millis",
  runnerHealthCheckInterval: "500 millis",
  entityTerminationTimeout: "1 second"
}

export const runnerId = (port: number): SpiffeId.SpiffeId => SpiffeId.make(`spiffe://example.org/runner/${port}`)

type Storage = Layer.Layer<
  MessageStorage.MessageStorage | RunnerStorage.RunnerStorage,
  unknown,
  ShardingConfig.ShardingConfig
>

export interface World {
  readonly authority: DevAuthority.DevAuthority
  readonly storage: Storage
  readonly file: string
}

export const makeWorld: Effect.Effect<World, unknown, Scope.Scope> = Effect.gen(function* () {
  const file = join(yield* folder, "cluster.db")
  return {
    authority: yield* DevAuthority.make({ trustDomain: "example.org" }),
    storage: ClusterStorage.layer({ file }),
    file
  }
})

type Runner = Layer.Layer<
  Sharding.Sharding,
  unknown,
  | Layer.Layer.Context<ReturnType<typeof SecureHttpRunner.layer>>
  | Layer.Layer.Context<ReturnType<typeof SecureSocketRunner.layer>>
>

export interface Way {
  readonly runner: (authorize: PeerMatcher.PeerMatcher) => Runner
  readonly clientOnly: Runner
}

const over = (transport: "http" | "websocket"): Way => ({
  runner: (authorize) =>
    SecureHttpRunner.layer({ transport, authorize, server: { gracefulShutdownTimeout: "100 millis" } }),
  clientOnly: SecureHttpRunner.layerClientOnly({ transport })
})

/** Every way that carries a cluster. */
export const ways: Readonly<Record<string, Way>> = {
  "a secure socket": {
    runner: (authorize) => SecureSocketRunner.layer({ authorize }),
    clientOnly: SecureSocketRunner.layerClientOnly()
  },
  HTTP: over("http"),
  WebSocket: over("websocket")
}

export interface Start {
  readonly way: Way
  readonly port: number
  readonly authorize: PeerMatcher.PeerMatcher
  /** Default: that of the runner's port. */
  readonly identity?: TestIdentity.TestIdentity | undefined
  readonly clientOnly?: boolean | undefined
  /** What its sharding has beside the intervals of these tests. */
  readonly sharding?: Partial<ShardingConfig.ShardingConfig["Type"]> | undefined
  /** The ID that this runner expects at an address. Default: that of the port. */
  readonly peers?: ((address: RunnerAddress.RunnerAddress) => string | undefined) | undefined
}

export interface Platform extends Pick<Start, "identity" | "peers" | "sharding"> {
  /** The port of the runner's own address. Without one it has no address. */
  readonly port?: number | undefined
}

/** What a runner stands on. */
export const platform = Effect.fnUntraced(function* (world: World, options: Platform) {
  const { peers = ({ port }) => runnerId(port), port } = options
  const identity = options.identity ?? (yield* identityOf(world.authority, { path: `/runner/${port}` }))
  const events: Array<AuditEvent.AuditEvent> = []
  const runnerAddress = Option.map(Option.fromNullable(port), (port) => RunnerAddress.make(host, port))
  const layer = Layer.mergeAll(world.storage, RunnerPeers.layer(peers), NodeConnector.layer).pipe(
    Layer.provideMerge(Layer.merge(identity.layer, AuditLog.layerMemory(events))),
    Layer.provideMerge(ShardingConfig.layer({ ...soon, ...options.sharding, runnerAddress }))
  )
  return { events, layer }
})

/** The entity on a runner, and the IDs that it was asked for there. */
const serving = (port: number) => {
  const served: Array<string> = []
  const entity = Counter.toLayer(
    Effect.map(Entity.CurrentAddress, ({ entityId }) => {
      const serve = Effect.sync(() => {
        served.push(entityId)
        return String(port)
      })
      return { Where: () => serve, Add: () => serve }
    }),
    { concurrency: "unbounded" }
  )
  return { entity, served }
}

/** A runner with the entity, or a program that only sends, and what it told its logs. */
export const start = Effect.fnUntraced(function* (world: World, options: Start) {
  const { authorize, clientOnly = false, port, way } = options
  const { events, layer } = yield* platform(world, options)
  const { entity, served } = serving(port)
  const warnings: Array<unknown> = []
  const logger = Logger.make<unknown, void>(({ cause, message }) => void warnings.push(message, cause))
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const services = yield* (clientOnly ? way.clientOnly : Layer.provideMerge(entity, way.runner(authorize))).pipe(
    Layer.provide(layer),
    Layer.buildWithScope(scope),
    Effect.locally(FiberRef.currentLoggers, HashSet.make(logger))
  )
  const counter = yield* Effect.provide(Counter.client, services)
  const sharding = Context.get(services, Sharding.Sharding)
  return { port, counter, sharding, served, events, warnings, close: Scope.close(scope, Exit.void) }
})

export type Started = Effect.Effect.Success<ReturnType<typeof start>>

/** Where each of the entities lives, as this runner sees it. */
export const places = ({ counter }: Started) =>
  Effect.forEach(
    Array.from({ length: 24 }, (_, n) => `entity-${n}`),
    (id) => counter(id).Where(),
    { concurrency: "unbounded" }
  )

/** Asks until the entities live on these runners and on no others. */
export const livesOn = (asked: Started, runners: ReadonlyArray<{ readonly port: number }>) => {
  const expected = runners.map(({ port }) => String(port)).sort()
  return Effect.repeat(
    Effect.map(Effect.delay(places(asked), "20 millis"), (found) => Array.from(new Set(found)).sort()),
    { until: (found) => found.join() === expected.join() }
  )
}

export const identityOf = (authority: DevAuthority.DevAuthority, options: DevAuthority.IssueOptions) =>
  Effect.flatMap(authority.context(options), TestIdentity.make)
