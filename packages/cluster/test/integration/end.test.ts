import { createConnection } from "node:net"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { freePort, host, livesOn, makeWorld, runnerId, start, ways } from "./world.js"

/** Whether somebody listens on a port. */
const listens = (port: number): Effect.Effect<boolean> =>
  Effect.async((resume) => {
    const socket = createConnection({ host, port })
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.succeed(true))
    })
    socket.once("error", () => resume(Effect.succeed(false)))
  })

for (const [name, way] of Object.entries(ways)) {
  describe(`the end of a runner over ${name}`, () => {
    it.scopedLive("its entities go to the other runner, and when both have ended nothing is open", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld
        const ports = [yield* freePort, yield* freePort] as const
        const authorize = PeerMatcher.oneOf(ports.map(runnerId))
        const first = yield* start(world, { way, authorize, port: ports[0] })
        const second = yield* start(world, { way, authorize, port: ports[1] })
        yield* livesOn(first, [first, second])
        yield* second.close
        yield* livesOn(first, [first])
        yield* first.close
        expect(yield* Effect.forEach(ports, listens)).toEqual([false, false])
        for (const { events } of [first, second]) {
          const count = (tag: string) => events.filter(({ _tag }) => _tag === tag).length
          expect(count("ConnectionEstablished")).toBeGreaterThan(0)
          expect(count("ConnectionClosed")).toBe(count("ConnectionEstablished"))
          expect(count("ConnectionAttempted")).toBe(count("ConnectionEstablished") + count("ConnectionRefused"))
        }
      })
    )
  })
}
