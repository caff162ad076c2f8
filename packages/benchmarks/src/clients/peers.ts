/** Clients of many peers, each on one connection of its own, asked by turns. */
import { PeerDirectory, Transport } from "@agentweave/transport"
import { HttpClientRequest } from "@effect/platform"
import { Effect, Layer, ManagedRuntime } from "effect"
import { Client } from "undici"
import type { Environment, Subject } from "../harness/Benchmark.js"
import { peerId } from "../harness/credentials.js"
import { effectLoop, inTurn, promiseLoop } from "../harness/loops.js"
import { services } from "./effects.js"
import { connectOptions, originOf } from "./promises.js"

export const server = "a node:https for each peer"

const clientOf = (environment: Environment, origin: string): Client =>
  new Client(origin, { pipelining: 1, connect: connectOptions(environment) })

const origins = async (environment: Environment, peers: number): Promise<ReadonlyArray<string>> => {
  const client = clientOf(environment, originOf(environment, server))
  const { body } = await client.request({ method: "GET", path: "/" })
  const ports = (await body.json()) as ReadonlyArray<number>
  await client.destroy()
  return ports.slice(0, peers).map((port) => `https://127.0.0.1:${port}`)
}

/** `Transport.client` of each peer, audit events counted. */
export const viaTransport = (peers: number, inFlight: number): Subject => ({
  server,
  start: async (environment) => {
    const addresses = (await origins(environment, peers)).map((origin, i) => [peerId(i), origin] as const)
    const layer = Transport.layer({
      pool: { maxConnectionsPerTarget: 1, maxTotalConnections: peers, acquireTimeout: "1 minute" }
    }).pipe(
      Layer.provide(PeerDirectory.layerStatic(Object.fromEntries(addresses))),
      Layer.provide(services(environment, "memory"))
    )
    const runtime = ManagedRuntime.make(layer)
    const next = inTurn(
      await runtime.runPromise(
        Effect.flatMap(Transport.Transport, ({ client }) => Effect.forEach(addresses, ([peer]) => client(peer)))
      )
    )
    const operation = () => Effect.flatMap(next().execute(HttpClientRequest.get("/json")), (response) => response.json)
    for (const _ of addresses) await runtime.runPromise(operation())
    return {
      sample: effectLoop(await runtime.runtime(), inFlight, operation),
      check: () => runtime.runPromise(operation()),
      stop: () => runtime.dispose()
    }
  }
})

/** A bare undici `Client` for each peer. */
export const viaUndici = (peers: number, inFlight: number): Subject => ({
  server,
  start: async (environment) => {
    const clients = (await origins(environment, peers)).map((origin) => clientOf(environment, origin))
    const next = inTurn(clients)
    const operation = async () => {
      const { body, statusCode } = await next().request({ method: "GET", path: "/json" })
      if (statusCode !== 200) throw new Error(`status ${statusCode}`)
      return body.json()
    }
    for (const _ of clients) await operation()
    return {
      sample: promiseLoop(inFlight, operation),
      check: operation,
      stop: async () => {
        await Promise.all(clients.map((client) => client.destroy()))
      }
    }
  }
})
