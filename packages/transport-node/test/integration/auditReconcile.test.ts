/** The audit files of both sides against what a proxy between them saw. */
import { mkdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as Fault from "@agentweave/testkit/Fault"
import * as FaultProxy from "@agentweave/testkit/FaultProxy"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import { type AuditEvent, PrometheusMetrics } from "@agentweave/transport"
import { AuditFile, NodeAuditLog } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import { Effect, Either, Layer, Logger, LogLevel, TestClock } from "effect"
import { problemsOf, trustIn } from "../auditReports.js"
import {
  audited,
  call,
  count,
  distrusted,
  eventsOf,
  folder,
  histories,
  rawBytes,
  refused,
  request,
  served,
  settled,
  startClient,
  startServer
} from "./auditSides.js"
import { hostileClient, hostileServer, makeLog, realTime } from "./fixture.js"

const world = Effect.gen(function* () {
  yield* realTime
  const dir = yield* folder
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const serverIdentity = yield* TestIdentity.make(yield* authority.context({ path: "/server" }))
  const clientIdentity = yield* TestIdentity.make(yield* authority.context({ path: "/client" }))
  return { authority, clientIdentity, dir, serverIdentity, serverId: authority.id("/server") }
})

/** What the Prometheus text says, by name and labels. Other tests of this process are in it too. */
const samples = Effect.map(
  PrometheusMetrics.text,
  (text) => new Map(text.split("\n").map((line) => [line.replace(/ [^ ]*$/, ""), Number(line.replace(/^.* /, ""))]))
)

it.scoped(
  "every connection a proxy saw is in the server's file once, with its end; the client's own in the client's",
  () =>
    Effect.gen(function* () {
      const before = yield* samples
      const { authority, clientIdentity, dir, serverId, serverIdentity } = yield* world
      const foreign = yield* DevAuthority.make({ trustDomain: "example.org" })
      const serverFile = audited(join(dir, "server.ndjson"), { checkpointEvery: 10 })
      const clientFile = audited(join(dir, "client.ndjson"), { checkpointEvery: 10 })
      const server = yield* startServer({
        identity: serverIdentity,
        authorize: authority.id("/client"),
        audit: Layer.provide(serverFile.layer, serverIdentity.layer)
      })
      const client = yield* startClient({
        identity: clientIdentity,
        audit: Layer.provide(clientFile.layer, clientIdentity.layer)
      })
      const proxy = yield* FaultProxy.make({ port: server.port })
      const raw = (authority: DevAuthority.DevAuthority, options: DevAuthority.IssueOptions) =>
        Effect.flatMap(authority.issueRaw(options), (credentials) => hostileClient(proxy.port, credentials))

      const visitors: ReadonlyArray<readonly [Effect.Effect<unknown, unknown>, string]> = [
        [call(client, proxy.port, serverId), served],
        [raw(authority, { path: "/intruder" }), distrusted("UnexpectedPeer")],
        [raw(foreign, { path: "/client" }), distrusted("UntrustedChain")],
        [raw(authority, { path: "/client", validity: "Expired" }), distrusted("Expired")],
        [hostileClient(proxy.port, undefined), distrusted("NoCertificate")],
        [rawBytes(proxy.port, "GET / HTTP/1.1\r\nhost: x\r\n\r\n"), refused("ConnectionError", "NotTls")],
        [rawBytes(proxy.port, new Uint8Array(200).fill(0xa5)), refused("ConnectionError", "NotTls")],
        [
          Effect.zipRight(
            proxy.setFault(Fault.reset({ afterBytes: 200 })),
            Effect.ensuring(call(client, proxy.port, serverId), Effect.orDie(proxy.setFault(Fault.passThrough)))
          ),
          refused("ConnectionError", "HandshakeReset")
        ],
        [call(client, proxy.port, serverId), served]
      ]
      // One after the other, so that the proxy's order is the server's.
      const expected: Array<string> = []
      for (const [visit, history] of visitors) {
        yield* Effect.ignore(visit)
        expected.push(history)
        yield* settled(serverFile.log, expected.length)
      }
      // And many at once, of which only the sum is known.
      yield* Effect.all(
        Array.from({ length: 12 }, (_, n) =>
          n % 3 === 0 ? raw(foreign, { path: "/client" }) : call(client, proxy.port, serverId)
        ),
        { concurrency: "unbounded", discard: true }
      )
      yield* settled(serverFile.log, expected.length + 12)

      // What the client refuses itself, and what never came to be.
      const stranger = yield* hostileServer(yield* foreign.issueRaw({ path: "/server" }))
      const nobody = yield* FaultProxy.make({ port: server.port })
      yield* nobody.setFault(Fault.refuse)
      const answers = [
        yield* call(client, stranger.port, serverId),
        yield* call(client, nobody.port, serverId),
        yield* call(client, server.port, authority.id("/other"))
      ]
      expect(answers.every(Either.isLeft)).toBe(true)
      yield* settled(serverFile.log, expected.length + 13)

      const metrics = yield* samples
      yield* client.close
      yield* server.close
      const seen = yield* proxy.connections
      expect(seen.length).toBe(expected.length + 12)
      expect(seen.every(({ closedAt }) => closedAt !== undefined)).toBe(true)

      const serverText = readFileSync(join(dir, "server.ndjson"), "utf8")
      const clientText = readFileSync(join(dir, "client.ndjson"), "utf8")
      expect(AuditFile.verify(serverText, trustIn(authority, "/server")).verdict).toBe("Verified")
      expect(AuditFile.verify(clientText, trustIn(authority, "/client")).verdict).toBe("Verified")

      // The one beyond what the proxy saw came to the server directly.
      const onServer = histories(eventsOf(serverText))
      expect(onServer.slice(0, expected.length)).toEqual(expected)
      expect(onServer.slice(expected.length, -1).toSorted()).toEqual([
        ...Array.from({ length: 8 }, () => served),
        ...Array.from({ length: 4 }, () => distrusted("UntrustedChain"))
      ])
      expect(onServer.length).toBe(seen.length + 1)
      expect([served, refused("ConnectionError", "HandshakeReset")]).toContain(onServer.at(-1))
      expect(server.handled()).toBe(10)

      expect(histories(eventsOf(clientText))).toEqual([
        served,
        refused("ConnectionError", "HandshakeReset"),
        ...Array.from({ length: 9 }, () => served),
        distrusted("UntrustedChain"),
        refused("ConnectionError", "Refused"),
        distrusted("UnexpectedPeer")
      ])

      // Handshakes, requests and ends are in the metrics as they are on record.
      const grown = Object.fromEntries(Array.from(metrics, ([name, value]) => [name, value - (before.get(name) ?? 0)]))
      expect(grown).toMatchObject({
        'transport_handshakes_total{side="Server",outcome="Refused",reason="UntrustedChain"}': 5,
        'transport_handshakes_total{side="Server",outcome="Refused",reason="NoCertificate"}': 1,
        'transport_handshakes_total{side="Client",outcome="Established",reason=""}': 10,
        'transport_handshakes_total{side="Client",outcome="Refused",reason="UnexpectedPeer"}': 1,
        'transport_handshake_duration_seconds_count{side="Client"}': 10,
        'transport_closed_connections_total{side="Client",reason="Shutdown"}': 10,
        'transport_open_connections{side="Client"}': 0,
        'transport_requests_total{side="Client",peer="spiffe://example.org/server",outcome="2xx"}': 10,
        'transport_requests_total{side="Server",peer="spiffe://example.org/client",outcome="2xx"}': 10,
        'transport_request_duration_seconds_count{side="Server"}': 10
      })
    })
)

/** The serial numbers each request ran under, by its path: found through the connection the request names. */
const servedBy = (events: ReadonlyArray<AuditEvent.AuditEvent>) =>
  Object.fromEntries(
    events.flatMap((event) => {
      if (event._tag !== "RequestEnded") return []
      const established = events.filter(
        (one) => one._tag === "ConnectionEstablished" && one.connectionId === event.connectionId
      )
      return established.map((one) =>
        one._tag === "ConnectionEstablished" ? [event.path, [one.ownSerialNumber, one.peerSerialNumber]] : []
      )
    })
  )

it.scoped("which SVIDs served a request is told by either side's file alone, across rotations", () =>
  Effect.gen(function* () {
    const { authority, clientIdentity, dir, serverId, serverIdentity } = yield* world
    const serverFile = audited(join(dir, "server.ndjson"))
    const clientFile = audited(join(dir, "client.ndjson"))
    const server = yield* startServer({
      identity: serverIdentity,
      authorize: authority.id("/client"),
      audit: Layer.provide(serverFile.layer, serverIdentity.layer)
    })
    const client = yield* startClient({
      identity: clientIdentity,
      audit: Layer.provide(clientFile.layer, clientIdentity.layer)
    })
    const serial = (identity: TestIdentity.TestIdentity) =>
      Effect.map(identity.provider.x509Context, ({ svid }) => svid.serialNumber)
    const [client1, server1] = [yield* serial(clientIdentity), yield* serial(serverIdentity)]

    const first = yield* client.connect(server.port, serverId)
    yield* request(first, "/1")

    yield* serverIdentity.rotate(authority.context({ path: "/server" }))
    const server2 = yield* serial(serverIdentity)
    // The server takes its new SVID into use in its own time.
    let second = yield* client.connect(server.port, serverId)
    while (second.peer.serialNumber !== server2) second = yield* client.connect(server.port, serverId)
    yield* request(second, "/2?no=matter")
    yield* request(first, "/3")

    yield* clientIdentity.rotate(authority.context({ path: "/client" }))
    const client2 = yield* serial(clientIdentity)
    const third = yield* client.connect(server.port, serverId)
    yield* request(third, "/4")
    yield* request(second, "/5")
    yield* client.close
    yield* server.close

    const expected: Record<string, readonly [client: string, server: string]> = {
      "/1": [client1, server1],
      "/2": [client1, server2],
      "/3": [client1, server1],
      "/4": [client2, server2],
      "/5": [client1, server2]
    }
    expect(new Set([client1, client2, server1, server2]).size).toBe(4)
    const read = (name: string) => servedBy(eventsOf(readFileSync(join(dir, name), "utf8")))
    expect(read("client.ndjson")).toEqual(expected)
    expect(read("server.ndjson")).toEqual(
      Object.fromEntries(Object.entries(expected).map(([path, [client, server]]) => [path, [server, client]]))
    )
  })
)

/** What was counted instead of being put on record. */
const droppedIn = (text: string) =>
  text.split("\n").flatMap((line) => (line === "" ? [] : (JSON.parse(line).dropped ?? [])))

for (const taken of [0, 1]) {
  it.scoped(`a client that can put ${taken} events of a connection on record refuses it with AuditError`, () =>
    Effect.gen(function* () {
      const { authority, clientIdentity, dir, serverId, serverIdentity } = yield* world
      const log = makeLog()
      const server = yield* startServer({
        identity: serverIdentity,
        authorize: authority.id("/client"),
        audit: log.layer
      })
      const proxy = yield* FaultProxy.make({ port: server.port })
      const path = join(dir, "client.ndjson")
      const client = yield* startClient({
        identity: clientIdentity,
        audit: Layer.provide(NodeAuditLog.layerFile({ path, maxPending: taken }), clientIdentity.layer)
      })
      const answer = yield* call(client, proxy.port, serverId)
      expect(answer).toMatchObject({ _tag: "Left", left: { _tag: "AuditError", reason: "Full" } })
      yield* client.close
      yield* settled(log, taken)
      yield* server.close
      // Without an attempt on record no socket opens; without an established connection on record nothing is sent.
      expect((yield* proxy.connections).length).toBe(taken)
      expect(server.handled()).toBe(0)
      expect(log.all("RequestStarted")).toEqual([])
      const text = readFileSync(path, "utf8")
      expect(problemsOf(text)).toEqual(["Dropped"])
      // The attempt; or that it was established, and the refusal this became.
      expect(droppedIn(text)).toEqual([{ requests: 0, others: taken + 1 }])
    })
  )

  it.scoped(
    `a server that can put ${taken} events of a connection on record does not serve it, and can still close`,
    () =>
      Effect.gen(function* () {
        const { authority, clientIdentity, dir, serverId, serverIdentity } = yield* world
        const path = join(dir, "server.ndjson")
        const server = yield* startServer({
          identity: serverIdentity,
          authorize: authority.id("/client"),
          audit: Layer.provide(NodeAuditLog.layerFile({ path, maxPending: taken }), serverIdentity.layer)
        })
        const client = yield* startClient({ identity: clientIdentity, audit: makeLog().layer })
        expect(yield* call(client, server.port, serverId)).toMatchObject({ _tag: "Left" })
        yield* server.close
        expect(server.handled()).toBe(0)
        const text = readFileSync(path, "utf8")
        expect(problemsOf(text)).toEqual(["Dropped"])
        expect(histories(eventsOf(text))).toEqual(["Attempted"].slice(0, taken))
        expect(droppedIn(text)).toMatchObject([{ requests: 0 }])
      })
  )
}

it.scoped("requests that cannot be put on record are served and counted, unless they are to fail closed", () =>
  Effect.gen(function* () {
    const { authority, clientIdentity, dir, serverId, serverIdentity } = yield* world
    const server = yield* startServer({
      identity: serverIdentity,
      authorize: authority.id("/client"),
      audit: makeLog().layer
    })
    const start = (name: string, options: Partial<NodeAuditLog.Options>) =>
      startClient({
        identity: clientIdentity,
        audit: Layer.provide(
          NodeAuditLog.layerFile({ path: join(dir, name), maxPending: 2, ...options }),
          clientIdentity.layer
        )
      })
    const lax = yield* start("lax.ndjson", {})
    yield* Effect.flatMap(lax.connect(server.port, serverId), (connection) =>
      Effect.repeatN(request(connection), 2)
    ).pipe(Effect.scoped)
    yield* lax.close
    expect(server.handled()).toBe(3)
    const text = readFileSync(join(dir, "lax.ndjson"), "utf8")
    expect(problemsOf(text)).toEqual(["Dropped"])
    expect(histories(eventsOf(text))).toEqual(["Attempted, Established"])
    // Three times start and end, and the end of the connection.
    expect(droppedIn(text)).toEqual([{ requests: 6, others: 1 }])

    const strict = yield* start("strict.ndjson", { whenFullOfRequests: "FailClosed" })
    const other = yield* strict.connect(server.port, serverId)
    expect(yield* Effect.flip(request(other))).toMatchObject({ _tag: "AuditError", reason: "Full" })
    yield* strict.close
    expect(server.handled()).toBe(3)
  })
)

it.scoped("once the file cannot be written, connections are refused and requests are counted", () =>
  Effect.gen(function* () {
    const { authority, clientIdentity, dir, serverId, serverIdentity } = yield* world
    const log = makeLog()
    const server = yield* startServer({
      identity: serverIdentity,
      authorize: authority.id("/client"),
      audit: log.layer
    })
    const gone = join(dir, "gone")
    mkdirSync(gone)
    const client = yield* startClient({
      identity: clientIdentity,
      audit: Layer.provide(
        // Full at once, so that the next file is wanted in a folder that is gone.
        NodeAuditLog.layerFile({ path: join(gone, "client.ndjson"), maxFileSize: 1 }),
        clientIdentity.layer
      )
    })
    const connection = yield* client.connect(server.port, serverId)
    rmSync(gone, { recursive: true })
    let answer = yield* call(client, server.port, serverId)
    while (Either.isRight(answer)) {
      yield* TestClock.adjust("100 millis")
      answer = yield* call(client, server.port, serverId)
    }
    expect(answer).toMatchObject({ left: { _tag: "AuditError", reason: "Failed" } })
    const before = count(log, "ConnectionAttempted")
    expect(yield* call(client, server.port, serverId)).toMatchObject({ left: { _tag: "AuditError", reason: "Failed" } })
    expect(count(log, "ConnectionAttempted")).toBe(before)
    expect(yield* request(connection)).toMatch(/^served/)
  }).pipe(Logger.withMinimumLogLevel(LogLevel.None))
)
