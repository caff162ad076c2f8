import { IdentityError, X509BundleSet, X509Context } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Schedule } from "effect"
import { startClient, startServer } from "./fixture.js"

// OpenSSL judges dates by the system's clock, so the clock here is the live one.

const setup = Effect.fnUntraced(function* (ttl: "3 seconds" | "1 hour") {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const serverIdentity = yield* TestIdentity.make(yield* authority.context({ path: "/server", ttl }))
  const clientIdentity = yield* TestIdentity.make(yield* authority.context({ path: "/client", ttl }))
  const server = yield* startServer({ identity: serverIdentity, authorize: authority.id("/client") })
  const client = yield* startClient(clientIdentity)
  const channel = yield* client.channel({
    port: server.port,
    peer: authority.id("/server"),
    config: { connections: 4 }
  })
  return { authority, serverIdentity, clientIdentity, server, client, channel }
})

describe("SVIDs that live three seconds, renewed each second", () => {
  it.scopedLive("carry every request, and none on a connection past the end of either side's", () =>
    Effect.gen(function* () {
      const { authority, channel, client, clientIdentity, server, serverIdentity } = yield* setup("3 seconds")
      const notAfter = new Map<string, number>()
      const renew = (identity: TestIdentity.TestIdentity, path: string) =>
        Effect.map(identity.rotate(authority.context({ path, ttl: "3 seconds" })), ({ svid }) =>
          notAfter.set(svid.fingerprint, svid.notAfter)
        )
      yield* renew(serverIdentity, "/server")
      yield* renew(clientIdentity, "/client")
      const each = Schedule.fixed("1 second")
      yield* Effect.forkScoped(Effect.repeat(renew(serverIdentity, "/server"), each))
      yield* Effect.forkScoped(Effect.repeat(renew(clientIdentity, "/client"), each))
      const failures: Array<string> = []
      const request = Effect.flatMap(channel.get("/"), ({ text }) => text).pipe(
        Effect.catchAll((error) => Effect.sync(() => void failures.push(String(error))))
      )
      const load = yield* Effect.fork(
        Effect.replicateEffect(Effect.repeat(request, Schedule.spaced("40 millis")), 6, { concurrency: 6 })
      )
      yield* Effect.sleep("6500 millis")
      yield* Fiber.interrupt(load)
      expect(failures).toEqual([])
      for (const { log } of [client, server]) {
        const established = log.all("ConnectionEstablished")
        // Known of every connection but what the very first SVIDs made.
        const end = new Map(
          established.map((event) => [
            event.connectionId,
            Math.min(notAfter.get(event.peerFingerprint) ?? 0, notAfter.get(event.ownFingerprint) ?? 0)
          ])
        )
        const requests = log.all("RequestStarted")
        expect(requests.length).toBeGreaterThan(10)
        expect(established.length).toBeGreaterThan(4)
        expect(requests.filter(({ connectionId, time }) => time > (end.get(connectionId) ?? 0))).toEqual([])
      }
    })
  )
})

describe("our own SVID, while the channel lives on", () => {
  it.scopedLive("expired without a successor: requests fail at once; they succeed when there is a new one", () =>
    Effect.gen(function* () {
      const { authority, channel, client, clientIdentity } = yield* setup("1 hour")
      yield* clientIdentity.set(yield* authority.context({ path: "/client", validity: "Expired" }))
      expect(yield* Effect.flip(channel.get("/"))).toMatchObject({ _tag: "IdentityError", reason: "Expired" })
      yield* clientIdentity.rotate(authority.context({ path: "/client" }))
      expect((yield* channel.get("/")).status).toBe(200)
      expect(client.log.all("ConnectionRefused")).toMatchObject([{ error: "IdentityError", reason: "Expired" }])
    })
  )

  it.scopedLive("withdrawn: requests that need a connection fail at once; they succeed when it returns", () =>
    Effect.gen(function* () {
      const { authority, channel, clientIdentity } = yield* setup("1 hour")
      yield* clientIdentity.fail(
        new IdentityError.IdentityError({ reason: "Withdrawn", description: "expected an identity, got none" })
      )
      expect(yield* Effect.flip(channel.get("/"))).toMatchObject({ _tag: "IdentityError", reason: "Withdrawn" })
      yield* clientIdentity.rotate(authority.context({ path: "/client" }))
      expect((yield* channel.get("/")).status).toBe(200)
    })
  )

  it.scopedLive("under a root that our own bundle has no more: refused before a socket opens", () =>
    Effect.gen(function* () {
      const { authority, channel, clientIdentity, server } = yield* setup("1 hour")
      const next = yield* Effect.flatMap(authority.rotateRoot(), ({ retireOldRoots }) => retireOldRoots)
      const { svid } = yield* clientIdentity.provider.x509Context
      yield* clientIdentity.set(X509Context.make({ svid, bundles: X509BundleSet.of(next.bundle) }))
      expect(yield* Effect.flip(channel.get("/"))).toMatchObject({ _tag: "IdentityError" })
      expect(server.log.events).toEqual([])
    })
  )
})
