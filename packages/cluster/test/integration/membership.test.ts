import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { RunnerStorage, ShardId, ShardingConfig } from "@effect/cluster"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import {
  freePort,
  identityOf,
  livesOn,
  makeWorld,
  runnerId,
  type Start,
  type Started,
  start,
  type World,
  ways
} from "./world.js"

/** The ports of the runners that are registered. */
const registered = (world: World) =>
  Effect.flatMap(RunnerStorage.RunnerStorage, (storage) => storage.getRunners).pipe(
    Effect.map((runners) => runners.map(([{ address }]) => address.port).sort()),
    Effect.provide(Layer.provide(world.storage, ShardingConfig.layerDefaults)),
    Effect.scoped
  )

/** Looks again and again until it is so. */
const until = <A, E, R>(look: Effect.Effect<A, E, R>, holds: (found: A) => boolean) =>
  Effect.repeat(Effect.delay(look, "20 millis"), { until: holds })

/** Waits until a runner has refused the one at a port, and gives the reason. */
const refusal = ({ events }: Started, port: number) =>
  Effect.map(
    until(
      Effect.sync(() =>
        events.flatMap((event) =>
          event._tag === "ConnectionRefused" && event.address === `127.0.0.1:${port}` ? [event.reason] : []
        )
      ),
      (reasons) => reasons.length > 0
    ),
    ([reason]) => reason
  )

/** Runners that are not what they say: the authority of their SVID, its path, and why they are refused. */
const rogues = {
  "of another ID": { reason: "UnexpectedPeer", authority: ({ authority }: World) => Effect.succeed(authority) },
  "of another trust domain": {
    reason: "UntrustedChain",
    authority: () => DevAuthority.make({ trustDomain: "elsewhere.test" })
  },
  "whose authority only has the name of ours": {
    reason: "UntrustedChain",
    authority: () => DevAuthority.make({ trustDomain: "example.org" })
  }
}

for (const [name, way] of Object.entries(ways)) {
  describe(`who is a runner, over ${name}`, () => {
    const refused = (test: string, options: (port: number) => Partial<Start>, reason: string) =>
      it.scopedLive(`${test}: it is not built, and is never registered`, () =>
        Effect.gen(function* () {
          const world = yield* makeWorld
          const port = yield* freePort
          const authorize = PeerMatcher.exactly(runnerId(port))
          const error = yield* Effect.flip(start(world, { way, port, authorize, ...options(port) }))
          expect(error).toMatchObject({ _tag: "RunnerIdentityError", reason, address: `127.0.0.1:${port}` })
          expect(yield* registered(world)).toEqual([])
        })
      )

    refused(
      "a runner with the SVID of another address",
      (port) => ({ peers: () => runnerId(port + 1), authorize: PeerMatcher.exactly(runnerId(port + 1)) }),
      "OtherIdentity"
    )
    refused(
      "a runner that may not join",
      (port) => ({ authorize: PeerMatcher.exactly(runnerId(port + 1)) }),
      "NotAuthorized"
    )
    refused("a runner at an address that nobody knows", () => ({ peers: () => undefined }), "UnknownAddress")

    for (const [kind, rogue] of Object.entries(rogues)) {
      it.scopedLive(`a runner ${kind} that says it belongs there gets no shard, and nothing of it is served`, () =>
        Effect.gen(function* () {
          const world = yield* makeWorld
          const ports = [yield* freePort, yield* freePort, yield* freePort] as const
          const authorize = PeerMatcher.oneOf(ports.map(runnerId))
          const first = yield* start(world, { way, authorize, port: ports[0] })
          const second = yield* start(world, { way, authorize, port: ports[1] })
          yield* livesOn(first, [first, second])

          const authority = yield* rogue.authority(world)
          const ownId = authority.id("/stranger")
          const third = yield* start(world, {
            way,
            port: ports[2],
            identity: yield* identityOf(authority, { path: "/stranger" }),
            // A group whose shards nobody holds.
            sharding: { availableShardGroups: ["default", "spare"], assignedShardGroups: ["default", "spare"] },
            authorize: PeerMatcher.or(authorize, PeerMatcher.exactly(ownId)),
            peers: ({ port }) => (port === ports[2] ? ownId : runnerId(port))
          })
          yield* until(registered(world), (found) => found.includes(ports[2]))
          yield* Effect.fork(third.counter("of the rogue").Where())
          expect(yield* refusal(first, ports[2])).toBe(rogue.reason)
          expect(yield* refusal(second, ports[2])).toBe(rogue.reason)

          // One of the two goes: the other takes its shards, and the rogue none.
          yield* second.close
          yield* livesOn(first, [first])
          expect(third.sharding.hasShardId(ShardId.make("spare", 1))).toBe(false)
          expect(third.served).toEqual([])
          expect(first.served.concat(second.served)).not.toContain("of the rogue")
          const warned = first.warnings.filter((message) =>
            String(message).includes(`127.0.0.1:${ports[2]} gets no shard`)
          )
          expect(warned.map(String)).toEqual([expect.stringContaining(`${rogue.reason}: `)])
          expect(String(third.warnings)).toContain("this runner takes no shard")
        })
      )
    }
  })
}
