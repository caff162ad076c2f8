import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Schedule } from "effect"
import { freePort, identityOf, livesOn, makeWorld, runnerId, type Started, start, ways } from "./world.js"

const expired = ({ events }: Started): number =>
  events.filter((event) => event._tag === "ConnectionClosed" && event.reason === "Expiry").length

for (const [name, way] of Object.entries(ways)) {
  describe(`rotation under a cluster over ${name}`, () => {
    it.scopedLive(
      "each 100 ms, of SVIDs that live for seconds: connections end and are made again, and no call fails",
      () =>
        Effect.gen(function* () {
          const world = yield* makeWorld
          const ports = [yield* freePort, yield* freePort] as const
          const authorize = PeerMatcher.oneOf(ports.map(runnerId))
          let rotations = 0
          const rotating = (port: number) =>
            Effect.gen(function* () {
              const svid = { path: `/runner/${port}`, ttl: "4 seconds" } as const
              const identity = yield* identityOf(world.authority, svid)
              yield* identity.rotate(world.authority.context(svid)).pipe(
                Effect.tap(() => Effect.sync(() => rotations++)),
                Effect.repeat(Schedule.spaced("100 millis")),
                Effect.forkScoped
              )
              return yield* start(world, { way, authorize, port, identity })
            })
          const [first, second] = [yield* rotating(ports[0]), yield* rotating(ports[1])]
          yield* livesOn(first, [first, second])

          let isOver = false
          let calls = 0
          let answered = 0
          const call = (runner: Started) =>
            Effect.suspend(() => {
              const n = calls++
              const entity = runner.counter(`entity-${n % 24}`)
              return n % 3 === 0 ? entity.Add({ key: `${n}` }) : entity.Where()
            }).pipe(
              Effect.tap(() => Effect.sync(() => answered++)),
              Effect.delay("2 millis"),
              Effect.repeat({ until: () => isOver })
            )
          const traffic = yield* Effect.fork(
            Effect.forEach([first, first, second, second], call, { concurrency: "unbounded" })
          )
          yield* Effect.repeat(Effect.sleep("20 millis"), {
            until: () => rotations >= 40 && expired(first) + expired(second) >= 4 && answered >= 40
          }).pipe(Effect.raceFirst(Fiber.join(traffic)))
          isOver = true
          yield* Fiber.join(traffic)
          expect(answered).toBe(calls)
        })
    )
  })
}
