import { get } from "node:https"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as Connector from "@agentweave/transport/Connector"
import * as NodeSecureAgent from "@agentweave/transport-node/NodeSecureAgent"
import { describe, expect, it } from "@effect/vitest"
import { type Clock, Effect } from "effect"
import { failure, host, hostileServer, realTime, startClient } from "./fixture.js"

describe("an agent", () => {
  it.scoped("does not use an idle connection again whose certificates have ended, however late its supervisor is", () =>
    Effect.gen(function* () {
      yield* realTime
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const identity = yield* authority.context({ path: "/client" })
      // A clock that is set while nothing that sleeps on it wakes up, as when a machine comes back from a long sleep.
      const clock = yield* Effect.clockWith(Effect.succeed)
      let ahead = 0
      const set: Clock.Clock = Object.assign(Object.create(clock), {
        unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis() + ahead,
        currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + ahead)
      })
      const { connector, log } = yield* Effect.withClock(startClient(identity), set)
      const server = yield* hostileServer(yield* authority.issueRaw({ path: "/server" }))
      const agent = yield* Effect.provideService(
        NodeSecureAgent.make({ peer: authority.id("/server"), origin: `https://${host}:${server.port}` }),
        Connector.Connector,
        connector
      )
      const ask = Effect.async<number | undefined, Error>((resume) => {
        get(`https://${host}:${server.port}/`, { agent }, (response) => {
          response.resume().once("end", () => resume(Effect.succeed(response.statusCode)))
        }).on("error", (cause) => resume(Effect.fail(cause)))
      })
      const turn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))
      expect(yield* ask).toBe(200)
      yield* turn
      expect(yield* ask).toBe(200)
      yield* turn
      expect(server.accepted()).toBe(1)
      const before = server.bytes()
      ahead = 365 * 24 * 60 * 60 * 1000
      expect(yield* failure(ask)).toBeInstanceOf(Error)
      yield* server.idle
      expect(server.bytes()).toBe(before)
      expect(yield* log.nth("ConnectionClosed")).toMatchObject({ reason: "Expiry" })
    })
  )
})
