import { X509BundleSet, X509Context, type X509Svid } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import type { AuditEvent, TransportConfig } from "@agentweave/transport"
import { ConnectionPool, Connector, PeerDirectory } from "@agentweave/transport"
import type { HttpClient } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { type Duration, Effect, Fiber, Layer, Schedule } from "effect"
import { host, type Log, startClient, startServer } from "./fixture.js"
import { collectGarbage } from "./garbage.js"

// OpenSSL judges dates by the system's clock and the load is a load in real time, so the clock here is the live one.

const connections = 8

interface Load {
  served: number
  readonly failures: Array<string>
}

/** Each of 16 fibers starts a request at every interval, until interrupted; a failed one is noted, and the load goes on. */
const steadily = (client: HttpClient.HttpClient.With<unknown>, load: Load, interval: Duration.DurationInput) => {
  const request = Effect.flatMap(client.get("/"), ({ text }) => text as Effect.Effect<string, unknown>)
  const noted = Effect.match(request, {
    onFailure: (error) => void load.failures.push(String(error)),
    onSuccess: () => void load.served++
  })
  return Effect.replicateEffect(Effect.repeat(noted, Schedule.fixed(interval)), 16, { concurrency: 16 })
}

const every = (interval: Duration.DurationInput, effect: Effect.Effect<unknown, unknown>) =>
  Effect.forkScoped(Effect.repeat(effect, Schedule.fixed(interval)))

interface SetupOptions {
  readonly transport?: TransportConfig.Options | undefined
  readonly maxConnectionAge?: Duration.DurationInput | undefined
}

/** A server and a client with a pool to it, both of one trust domain and each with an identity of its own. */
const setup = Effect.fnUntraced(function* (authority: DevAuthority.DevAuthority, options: SetupOptions = {}) {
  const serverIdentity = yield* TestIdentity.make(yield* authority.context({ path: "/server" }))
  const clientIdentity = yield* TestIdentity.make(yield* authority.context({ path: "/client" }))
  const server = yield* startServer({
    identity: serverIdentity,
    authorize: authority.id("/client"),
    maxConnectionAge: options.maxConnectionAge
  })
  const client = yield* startClient(clientIdentity)
  const peer = authority.id("/server")
  const services = yield* ConnectionPool.layer({
    maxConnectionsPerTarget: connections,
    acquireTimeout: "10 seconds",
    transport: options.transport
  }).pipe(
    Layer.provide(PeerDirectory.layerStatic({ [peer]: `https://${host}:${server.port}` })),
    Layer.provide(Layer.succeed(Connector.Connector, client.connector)),
    Layer.provide(clientIdentity.layer),
    Layer.build
  )
  const pool = yield* Effect.provide(ConnectionPool.ConnectionPool, services)
  return { server, client, serverIdentity, clientIdentity, pooled: pool.client(peer) }
})

/** How many connections are open, by the record. */
const open = (log: Log) => log.all("ConnectionEstablished").length - log.all("ConnectionClosed").length

/** The records of requests, which grow with their number, are no part of what is weighed. */
const forget = (log: Log) =>
  Effect.sync(() => {
    const kept = log.events.filter(({ _tag }) => _tag !== "RequestStarted" && _tag !== "RequestEnded")
    const events = log.events as Array<AuditEvent.AuditEvent>
    events.splice(0, events.length, ...kept)
  })

const heap = Effect.map(collectGarbage, () => process.memoryUsage().heapUsed)

describe("a rotation every 100 ms on both sides, under load", () => {
  it.scopedLive("fails no request in 5 seconds, and leaves neither connections nor identities behind", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      // Both sides end connections by age, so that handshakes happen all the time, with whatever is newest.
      const { client, clientIdentity, pooled, server, serverIdentity } = yield* setup(authority, {
        transport: { maxConnectionAge: "700 millis" },
        maxConnectionAge: "500 millis"
      })
      const load: Load = { served: 0, failures: [] }
      const rotated: Array<WeakRef<X509Context.X509Context>> = []
      // Issued beforehand: that is an agent's work, and not in this process.
      const rotate = Effect.fnUntraced(function* (identity: TestIdentity.TestIdentity, path: string) {
        const svids = yield* Effect.replicateEffect(authority.issue({ path }), 20)
        let next = 0
        const set = Effect.suspend(() => {
          const svid = svids[next++ % svids.length] as X509Svid.X509Svid
          const context = X509Context.make({ svid, bundles: X509BundleSet.of(authority.bundle) })
          rotated.push(new WeakRef(context))
          return identity.set(context)
        })
        yield* every("100 millis", set)
      })
      yield* rotate(serverIdentity, "/server")
      yield* rotate(clientIdentity, "/client")
      // 1,066 requests a second.
      const requests = yield* Effect.fork(steadily(pooled, load, "15 millis"))
      yield* Effect.sleep("1 second")
      yield* Effect.all([forget(client.log), forget(server.log)])
      const before = yield* heap
      yield* Effect.sleep("4 seconds")
      // A busy machine serves fewer, and is given the time it needs for half of them.
      yield* Effect.repeat(Effect.sleep("50 millis"), { until: () => load.served >= 3_000 })
      yield* Fiber.interrupt(requests)

      expect(load.failures).toEqual([])
      expect(load.served).toBeGreaterThanOrEqual(3_000)
      expect(rotated.length).toBeGreaterThan(40)
      expect(open(client.log)).toBeLessThanOrEqual(connections)
      expect(open(server.log)).toBeLessThanOrEqual(connections)
      // Handshakes met the rotations: no two SVIDs of ours on a connection for long.
      const presented = new Set(client.log.all("ConnectionEstablished").map(({ ownFingerprint }) => ownFingerprint))
      expect(presented.size).toBeGreaterThan(5)
      // The last attempts may have been given up with the load; no peer was refused.
      for (const { log } of [client, server]) {
        const refused = log.all("ConnectionRefused").map(({ error }) => error)
        expect(refused.filter((error) => error === "PeerVerificationError" || error === "IdentityError")).toEqual([])
      }

      yield* Effect.all([forget(client.log), forget(server.log)])
      const after = yield* heap
      expect(after - before).toBeLessThan(8 * 1024 * 1024)
      expect(rotated.filter((context) => context.deref() !== undefined).length).toBeLessThan(20)
    })
  )
})

type Step = Effect.Effect<void>

const orders: Readonly<Record<string, (client: Step, server: Step) => Step>> = {
  "the client first": (client, server) => Effect.zipRight(client, Effect.delay(server, "100 millis")),
  "the server first": (client, server) => Effect.zipRight(server, Effect.delay(client, "100 millis")),
  "both at once": (client, server) => Effect.zipRight(server, client)
}

describe("a roll-over of the CA, under load", () => {
  const rollOver = Effect.fnUntraced(function* (remove: (client: Step, server: Step) => Step) {
    const old = yield* DevAuthority.make({ trustDomain: "example.org" })
    const both = yield* old.rotateRoot()
    const next = yield* both.retireOldRoots
    const { client, clientIdentity, pooled, server, serverIdentity } = yield* setup(old)
    const load: Load = { served: 0, failures: [] }
    const requests = yield* Effect.fork(steadily(pooled, load, "70 millis"))
    const step = Effect.sleep("200 millis")
    // All connections there will be rest on the old root.
    yield* client.log.nth("ConnectionEstablished", connections - 1)
    yield* step
    const below = (authority: DevAuthority.DevAuthority, path: string) =>
      Effect.map(authority.issue({ path }), (svid) =>
        X509Context.make({ svid, bundles: X509BundleSet.of(both.bundle) })
      )
    yield* serverIdentity.rotate(below(old, "/server"))
    yield* clientIdentity.rotate(below(old, "/client"))
    yield* step
    const newServer = yield* serverIdentity.rotate(below(both, "/server"))
    const newClient = yield* clientIdentity.rotate(below(both, "/client"))
    // The server presents its new SVID.
    const handshake = Effect.scoped(client.connect({ port: server.port, peer: old.id("/server") }))
    yield* Effect.repeat(handshake, { until: ({ peer }) => peer.fingerprint === newServer.svid.fingerprint })
    yield* step
    const without = (identity: TestIdentity.TestIdentity, { svid }: X509Context.X509Context) =>
      identity.set(X509Context.make({ svid, bundles: X509BundleSet.of(next.bundle) }))
    yield* remove(without(clientIdentity, newClient), without(serverIdentity, newServer))
    const removed = Date.now()
    yield* Effect.sleep("1500 millis")
    const served = load.served
    yield* Effect.repeat(Effect.sleep("50 millis"), { until: () => load.served > served + 10 })
    yield* Fiber.interrupt(requests)
    return { client, server, load, removed, fingerprints: [newServer.svid.fingerprint, newClient.svid.fingerprint] }
  }, Effect.scoped)

  it.live("fails no request, and after one second none is served on a connection below the old root", () =>
    Effect.gen(function* () {
      const outcomes = yield* Effect.all(
        Object.entries(orders).map(([order, remove]) =>
          Effect.map(rollOver(remove), (outcome) => ({ order, outcome }))
        ),
        { concurrency: "unbounded" }
      )
      for (const { order, outcome } of outcomes) {
        const { client, fingerprints, load, removed, server } = outcome
        expect(load.failures, order).toEqual([])
        for (const { log } of [client, server]) {
          const isNew = new Map(
            log
              .all("ConnectionEstablished")
              .map((event) => [
                event.connectionId,
                fingerprints.includes(event.peerFingerprint) && fingerprints.includes(event.ownFingerprint)
              ])
          )
          const late = log.all("RequestStarted").filter(({ time }) => time > removed + 1000)
          expect(late.length, order).toBeGreaterThan(3)
          expect(
            late.filter(({ connectionId }) => isNew.get(connectionId) !== true),
            order
          ).toEqual([])
          // There were connections below the old root, or nothing is proved.
          expect(Array.from(isNew.values()), order).toContain(false)
        }
      }
    })
  )
})
