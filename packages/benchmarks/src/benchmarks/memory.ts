import { connect } from "node:tls"
import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { ConnectionPool, Connector, PeerDirectory, TransportConfig } from "@agentweave/transport"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { Pool } from "undici"
import * as clients from "../clients/effects.js"
import type { Benchmark, Environment, Subject } from "../harness/Benchmark.js"
import { serverId } from "../harness/credentials.js"
import { tlsOptions } from "../harness/tls.js"
import { plainServer } from "../servers/plain.js"

const server = "node:https"

const connections = 1_000
const peers = 10_000

/** After everything that can go has gone. */
const settled = async (): Promise<NodeJS.MemoryUsage> => {
  for (let i = 0; i < 4; i++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return process.memoryUsage()
}

/** KiB for each of `count` things: resident memory for what has native parts, the heap for what has not. */
const grown = async (of: "rss" | "heapUsed", count: number, make: () => Promise<unknown>): Promise<number> => {
  const before = await settled()
  const kept = await make()
  const after = await settled()
  if (kept === undefined) throw new Error("nothing was made")
  return (after[of] - before[of]) / 1024 / count
}

/** Opened before anything is measured: what code takes once it runs is not what a connection takes. */
const warmUp = 400

/** At most so many handshakes at a time. */
const atOnce = 20

const bare: Subject = {
  server,
  start: async (environment) => {
    const { credentials, ports } = environment
    const { createSecureContext } = await import("node:tls")
    const secureContext = createSecureContext(tlsOptions(credentials, credentials.client))
    const open = () =>
      new Promise((resolve, reject) => {
        const socket = connect({
          host: "127.0.0.1",
          port: ports[server] ?? 0,
          secureContext,
          servername: "",
          checkServerIdentity: () => undefined
        })
        socket.on("error", reject)
        socket.once("secureConnect", () => resolve(socket))
      })
    const openAll = async (count: number) => {
      const sockets: Array<unknown> = []
      while (sockets.length < count) {
        sockets.push(...(await Promise.all(Array.from({ length: atOnce }, open))))
      }
      return sockets
    }
    const warm = await openAll(warmUp)
    return {
      check: async () => warm.length,
      measure: () => grown("rss", connections, () => openAll(connections)),
      stop: async () => {}
    }
  }
}

const verified: Subject = {
  server,
  start: async (environment) => {
    const scope = Effect.runSync(Scope.make())
    const inScope = <A>(effect: Effect.Effect<A, unknown, Scope.Scope>) =>
      Effect.runPromise(Scope.extend(effect, scope))
    const context = await inScope(Layer.build(clients.services(environment, "memory")))
    const { connect: open } = Context.get(context, Connector.Connector)
    const options: Connector.ConnectOptions = {
      matcher: PeerMatcher.exactly(serverId),
      host: "127.0.0.1",
      port: environment.ports[server] ?? 0,
      config: TransportConfig.defaults,
      onClose: () => {}
    }
    const openAll = (count: number) =>
      inScope(
        Effect.all(
          Array.from({ length: count }, () => open(options)),
          { concurrency: atOnce }
        )
      )
    const warm = await openAll(warmUp)
    return {
      check: async () => warm.length,
      measure: () => grown("rss", connections, () => openAll(connections)),
      stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
    }
  }
}

const idOf = (i: number) => SpiffeId.make(`spiffe://bench.test/peer/${i}`)

/** Clients of peers that nobody has called yet. */
const known: Subject = {
  start: async (environment: Environment) => {
    const scope = Effect.runSync(Scope.make())
    const layer = Layer.provide(
      ConnectionPool.layer(),
      Layer.merge(clients.services(environment, "memory"), PeerDirectory.layerTemplate("https://{path}.bench.internal"))
    )
    const pool = Context.get(
      await Effect.runPromise(Scope.extend(Layer.build(layer), scope)),
      ConnectionPool.ConnectionPool
    )
    pool.client(idOf(peers))
    return {
      check: async () => 1,
      measure: () =>
        grown("heapUsed", peers, async () => Array.from({ length: peers }, (_, i) => pool.client(idOf(i)))),
      stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
    }
  }
}

const pools: Subject = {
  start: async () => {
    const make = (i: number) => new Pool(`https://peer-${i}.bench.internal`, { connections: 10 })
    make(peers)
    return {
      check: async () => 1,
      measure: () => grown("heapUsed", peers, async () => Array.from({ length: peers }, (_, i) => make(i))),
      stop: async () => {}
    }
  }
}

export const memory: Benchmark = {
  name: "memory",
  title: "what an idle connection and a known peer take",
  unit: { name: "KiB each", better: "lower" },
  isolated: true,
  servers: { [server]: plainServer },
  subjects: {
    "1,000 idle verified connections": verified,
    "1,000 idle tls sockets": bare,
    "10,000 peers without a connection": known,
    "10,000 undici pools without a connection": pools
  },
  rows: [
    { contender: "1,000 idle tls sockets", baseline: "1,000 idle tls sockets" },
    { contender: "1,000 idle verified connections", baseline: "1,000 idle tls sockets", target: 1.1 },
    {
      contender: "10,000 peers without a connection",
      baseline: "10,000 undici pools without a connection",
      target: 1,
      targetOf: "value"
    }
  ]
}
