import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { freePort, livesOn, makeWorld, runnerId, start, ways } from "./world.js"

for (const [name, way] of Object.entries(ways)) {
  describe(`runners over ${name}`, () => {
    it.scopedLive("two runners share the entities, and each reaches those of the other", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld
        const ports = [yield* freePort, yield* freePort] as const
        const authorize = PeerMatcher.oneOf(ports.map(runnerId))
        const first = yield* start(world, { way, authorize, port: ports[0] })
        const second = yield* start(world, { way, authorize, port: ports[1] })
        yield* livesOn(first, [first, second])
        yield* livesOn(second, [first, second])
        expect(yield* first.counter("a").Add({ key: "1" })).toBe(yield* second.counter("a").Add({ key: "1" }))
        for (const { events } of [first, second]) {
          // An attempt that a runner gives up for another one is no refusal of who it is.
          const errors = events.flatMap((event) => (event._tag === "ConnectionRefused" ? [event.error] : []))
          expect(errors.filter((error) => error !== "Interrupted" && error !== "ConnectionError")).toEqual([])
          expect(events.some(({ _tag }) => _tag === "ConnectionEstablished")).toBe(true)
        }
      })
    )

    it.scopedLive("a program that only sends reaches the entities and has none; one that may not is refused", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld
        const ports = [yield* freePort, yield* freePort] as const
        const authorize = PeerMatcher.oneOf(ports.map(runnerId))
        const runner = yield* start(world, { way, authorize, port: ports[0] })
        const client = yield* start(world, { way, authorize, port: ports[1], clientOnly: true })
        yield* livesOn(client, [runner])
        expect(yield* client.counter("a").Add({ key: "1" })).toBe(String(runner.port))

        const stranger = yield* start(world, { way, authorize, port: yield* freePort, clientOnly: true })
        yield* Effect.fork(stranger.counter("of the stranger").Where())
        const refused = yield* Effect.repeat(
          Effect.delay(
            Effect.sync(() => runner.events.find(({ _tag }) => _tag === "ConnectionRefused")),
            "20 millis"
          ),
          { until: (event) => event !== undefined }
        )
        expect(refused).toMatchObject({ side: "Server", error: "PeerVerificationError", reason: "UnexpectedPeer" })
        expect(runner.served).not.toContain("of the stranger")
      })
    )
  })
}
