import { IdentityProvider, SpiffeId } from "@agentweave/spiffe"
import { Connector, ConnectorResponse, PeerDirectory, Transport } from "@agentweave/transport"
import { Headers, HttpClientRequest } from "@effect/platform"
import { Effect, Layer, ManagedRuntime, Stream } from "effect"
import { server, viaTransport, viaUndici } from "../clients/peers.js"
import { type Benchmark, nanoseconds, type Row, type Subject } from "../harness/Benchmark.js"
import { effectLoop } from "../harness/loops.js"
import { peerServers } from "../servers/plain.js"

const body = new TextEncoder().encode(JSON.stringify({ id: 42 }))
const headers = Headers.unsafeFromRecord({ "content-type": "application/json" })

/** A peer that has answered before its request is out: no wire, so that what is left is ours. */
const connection = (id: string, peer: SpiffeId.SpiffeId): Connector.Connection => {
  let busy = false
  return {
    id,
    peer: { spiffeId: peer, serialNumber: "", fingerprint: "", bundleGeneration: "", notAfter: 0, chain: [] },
    ownId: peer,
    address: "peer:443",
    isUsable: () => !busy,
    unsafeStart: ({ onSettled, request }, resume) => {
      busy = true
      queueMicrotask(() => {
        const sink = ConnectorResponse.makeSink({ resume: () => {}, abort: () => {} })
        sink.push(body)
        busy = false
        onSettled()
        sink.end()
        const options = { request, status: 200, headers: () => headers, setCookie: () => [], remoteAddress: undefined }
        resume(Effect.sync(() => ConnectorResponse.makeResponse(sink, options)))
      })
      return () => {}
    },
    unsafeRetire: () => {}
  }
}

const connector = Layer.sync(Connector.Connector, () => {
  let made = 0
  return {
    connect: ({ matcher }) =>
      Effect.sync(() => connection(`c${made++}`, matcher._tag === "Exactly" ? matcher.id : idOf(0))),
    connectStream: () => Effect.never
  }
})

const idOf = (i: number): SpiffeId.SpiffeId => SpiffeId.make(`spiffe://bench.test/peer/${i}`)

/** Requests through `Transport.client` of so many peers by turns, so many at a time; of each peer so many in a row. */
const requests = (peers: number, fibers: number, inRow = 1): Subject => ({
  start: async () => {
    const layer = Transport.layer({
      pool: { maxTotalConnections: 10_000, maxConnectionsPerTarget: 10, acquireTimeout: "1 minute" }
    }).pipe(
      Layer.provide(
        Layer.mergeAll(
          connector,
          Layer.succeed(IdentityProvider.IdentityProvider, { x509Context: Effect.never, changes: Stream.never }),
          PeerDirectory.layerTemplate("https://{path}.internal")
        )
      )
    )
    const runtime = ManagedRuntime.make(layer)
    const all = await runtime.runPromise(
      Effect.flatMap(Transport.Transport, (transport) =>
        Effect.forEach(
          Array.from({ length: peers }, (_, i) => idOf(i)),
          transport.client
        )
      )
    )
    let next = 0
    const operation = () => {
      const client = all[Math.floor(next++ / inRow) % peers]
      if (client === undefined) return Effect.dieMessage("no client")
      return Effect.flatMap(client.execute(HttpClientRequest.get("/json")), (response) => response.json)
    }
    return {
      sample: effectLoop(await runtime.runtime(), fibers, operation, 16),
      check: () => runtime.runPromise(operation()),
      stop: () => runtime.dispose()
    }
  }
})

const peersOf = (count: number): string => `${count} peer${count === 1 ? "" : "s"}, one at a time`
const fibersOf = (count: number): string => `1 peer, ${count} fiber${count === 1 ? "" : "s"}`

const counts = [10, 100, 1_000]
const many = 1_000
const inRow = `${many} peers, ten requests each`

/** The same growth over mutual TLS, of ours and of bare undici: what of it is the connections'. */
const wire: ReadonlyArray<{ readonly name: string; readonly of: typeof viaTransport; readonly target?: number }> = [
  { name: "Transport.client", of: viaTransport, target: 1.1 },
  { name: "undici Client", of: viaUndici }
]
const atATime = [1, 10]
const over = (name: string, peers: number, inFlight: number): string =>
  `${name} over TLS, ${peers} peer${peers === 1 ? "" : "s"}, ${inFlight} at a time`

export const scale: Benchmark = {
  name: "scale",
  title: "one request, to so many peers by turns; without a wire but where it says TLS",
  unit: nanoseconds,
  millis: 60,
  warmUp: 50_000,
  peers: many,
  servers: { [server]: peerServers },
  subjects: {
    ...Object.fromEntries(
      [1, ...counts].flatMap((count) => [
        [peersOf(count), requests(count, 1)],
        [fibersOf(count), requests(1, count)]
      ])
    ),
    [inRow]: requests(many, 1, 10),
    ...Object.fromEntries(
      wire.flatMap(({ name, of }) =>
        atATime.flatMap((inFlight) =>
          [inFlight, many].map((peers) => [over(name, peers, inFlight), of(peers, inFlight)])
        )
      )
    )
  },
  rows: [
    { contender: peersOf(1), baseline: peersOf(1) },
    ...counts.map((count) => ({
      contender: peersOf(count),
      baseline: peersOf(1),
      ...(count === many ? { target: 1.1 } : undefined)
    })),
    { contender: inRow, baseline: peersOf(1) },
    ...counts.map((count) => ({ contender: fibersOf(count), baseline: fibersOf(1) })),
    ...atATime.flatMap((inFlight) =>
      wire.map(
        ({ name, target }): Row => ({
          contender: over(name, many, inFlight),
          baseline: over(name, inFlight, inFlight),
          ...(target === undefined ? undefined : { target })
        })
      )
    )
  ]
}
