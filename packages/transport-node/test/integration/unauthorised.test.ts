import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { CircuitBreaker } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import { failure, hostileClient, realTime, startClient, startServer } from "./fixture.js"

const setup = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const server = yield* startServer({
    identity: yield* authority.context({ path: "/server" }),
    authorize: authority.id("/somebody-else")
  })
  const client = yield* startClient(yield* authority.context({ path: "/client" }))
  return { authority, client, server }
})

const refused = { _tag: "IdentityError", reason: "LocalCertificateRefused" }

describe("a client whose ID the server does not authorise", () => {
  it.scoped("is told so once: one handshake, never retried, no breaker counts it, on record on both sides", () =>
    Effect.gen(function* () {
      const { authority, client, server } = yield* setup
      const channel = yield* client.channel({
        port: server.port,
        peer: authority.id("/server"),
        config: { retry: { maxRetries: 3, baseDelay: "1 millis" } }
      })
      const breaker = yield* CircuitBreaker.make({ target: "test", failureThreshold: 1 })
      const error = yield* failure(breaker.protect(channel.get("/")))
      expect(error).toMatchObject(refused)
      expect(String(error)).toContain(`authorise ${authority.id("/client")}`)
      expect(yield* breaker.state).toBe("Closed")
      expect(client.log.all("ConnectionAttempted").length).toBe(1)
      expect(client.log.all("RequestEnded")).toMatchObject([{ status: 403, error: "IdentityError" }])
      expect(server.log.all("ConnectionRefused")).toMatchObject([
        { reason: "UnexpectedPeer", actualId: authority.id("/client") }
      ])
      expect(server.handled()).toBe(0)
    })
  )

  it.scoped("sees a 403 that names the refusal, whatever it sends; one of another CA sees a close", () =>
    Effect.gen(function* () {
      const { authority, server } = yield* setup
      const { received } = yield* hostileClient(server.port, yield* authority.issueRaw({ path: "/client" }))
      expect(received).toMatch(
        /^HTTP\/1\.1 403 Forbidden\r\nconnection: close\r\nagentweave-peer-refused: UnexpectedPeer\r\n/
      )
      const stranger = yield* DevAuthority.make({ trustDomain: "example.org" })
      const closed = yield* hostileClient(server.port, yield* stranger.issueRaw({ path: "/somebody-else" }))
      expect(closed.received).toBe("")
      expect(server.handled()).toBe(0)
    })
  )

  it.scoped("and that sends nothing is closed after a second", () =>
    Effect.gen(function* () {
      const { authority, client, server } = yield* setup
      const connection = yield* client.connect({ port: server.port, peer: authority.id("/server") })
      yield* server.log.nth("ConnectionRefused")
      yield* TestClock.adjust("1 second")
      expect(yield* connection.ended).toMatch(/PeerClosed|Error/)
    })
  )
})

describe("a client whose certificate the server closes without a word", () => {
  it.scoped("says at the second close in a row that its certificate may have been refused, and stops there", () =>
    Effect.gen(function* () {
      const { authority, server } = yield* setup
      const { addRoot } = yield* DevAuthority.make({ trustDomain: "example.org" })
      const stranger = yield* addRoot(authority.roots[0])
      const client = yield* startClient(yield* stranger.context({ path: "/somebody-else" }))
      const channel = yield* client.channel({
        port: server.port,
        peer: authority.id("/server"),
        config: { retry: { maxRetries: 3, baseDelay: "1 millis", jitter: false } }
      })
      const running = yield* Effect.fork(failure(channel.get("/")))
      yield* client.log.nth("RequestEnded")
      yield* TestClock.adjust("1 second")
      const error = yield* Fiber.join(running)
      expect(error).toMatchObject({ _tag: "ConnectionError", reason: "MaybeRefused", isRetryable: false })
      expect(String(error)).toContain(`the certificate of ${authority.id("/somebody-else")} may have been refused`)
      expect(client.log.all("ConnectionAttempted").length).toBe(2)
      expect(client.log.all("RequestEnded")).toMatchObject([{ error: "ConnectionError" }, { error: "ConnectionError" }])
      expect(server.log.all("ConnectionRefused")).toMatchObject([
        { reason: "UntrustedChain" },
        { reason: "UntrustedChain" }
      ])
      expect(server.handled()).toBe(0)
      // Nothing has changed: the next request makes one connection, and is told the same.
      expect(yield* failure(channel.get("/"))).toMatchObject({ reason: "MaybeRefused" })
      expect(client.log.all("ConnectionAttempted").length).toBe(3)
    })
  )
})
