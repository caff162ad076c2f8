import { Chunk, Effect, Exit, Runtime, Scope, Stream } from "effect"
import { type Client, type Open, plain, secure } from "../clients/rpc.js"
import { type Benchmark, perSecond, type Subject } from "../harness/Benchmark.js"
import { effectLoop } from "../harness/loops.js"
import { plainRpcServer, secureRpcServer } from "../servers/rpc.js"

interface Case {
  readonly name: string
  readonly inFlight: number
  readonly operation: (client: Client) => Effect.Effect<unknown, unknown>
}

const get = (client: Client) => client.Get()
const list = (client: Client) => Effect.map(Stream.runCollect(client.List({ count: 100 })), Chunk.toReadonlyArray)

const cases: ReadonlyArray<Case> = [
  { name: "call, 1 in flight", inFlight: 1, operation: get },
  { name: "call, 50 in flight", inFlight: 50, operation: get },
  { name: "stream of 100, 10 in flight", inFlight: 10, operation: list }
]

const calling = (server: string, open: Open, { inFlight, operation }: Case): Subject => ({
  server,
  start: async (environment) => {
    const scope = Effect.runSync(Scope.make())
    const client = await Effect.runPromise(Scope.extend(open(environment, server), scope))
    return {
      sample: effectLoop(Runtime.defaultRuntime, inFlight, () => operation(client)),
      check: () => Effect.runPromise(operation(client)),
      stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
    }
  }
})

const overSecure = "RpcClient over SecureSocket"
const overPlain = "RpcClient over NodeSocket with node:tls"

const sides = [
  { name: overSecure, server: "NodeSecureSocketServer", open: secure },
  { name: overPlain, server: "node:tls", open: plain }
]

export const rpc: Benchmark = {
  name: "rpc",
  title: "RPC over one mutual TLS connection",
  unit: perSecond("calls"),
  cpuOf: "both",
  servers: { NodeSecureSocketServer: secureRpcServer, "node:tls": plainRpcServer },
  subjects: Object.fromEntries(
    sides.flatMap(({ name, open, server }) =>
      cases.map((at) => [`${name}, ${at.name}`, calling(server, open, at)] as const)
    )
  ),
  rows: [
    { contender: `${overPlain}, call, 50 in flight`, baseline: `${overPlain}, call, 50 in flight` },
    ...cases.map((at) => ({
      contender: `${overSecure}, ${at.name}`,
      baseline: `${overPlain}, ${at.name}`,
      target: 0.9
    }))
  ]
}
