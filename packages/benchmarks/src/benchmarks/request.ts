import { Effect, Exit, Runtime, Scope } from "effect"
import * as clients from "../clients/effects.js"
import { inspected } from "../clients/inspected.js"
import { type Call, type Json, viaDispatch, viaHttpsAgent, viaRequest } from "../clients/promises.js"
import { type Benchmark, type Environment, perSecond, type Row, type Subject } from "../harness/Benchmark.js"
import { effectLoop, promiseLoop } from "../harness/loops.js"
import { tracer } from "../harness/tracer.js"
import { plainServer, smallText } from "../servers/plain.js"

const server = "node:https"

const who: Call = { method: "GET", path: "/who", body: "" }

interface Case {
  readonly name: string
  readonly call: Call
  readonly inFlight: number
}

const cases: ReadonlyArray<Case> = (["GET", "POST"] as const).flatMap((method) =>
  [10, 50].map((inFlight) => ({
    name: `${method}, ${inFlight} in flight`,
    call: { method, path: "/json", body: smallText },
    inFlight
  }))
)

const promises = (open: (environment: Environment, server: string) => Json, { call, inFlight }: Case): Subject => ({
  server,
  start: async (environment) => {
    const client = open(environment, server)
    return {
      sample: promiseLoop(inFlight, () => client.request(call)),
      check: async () => [await client.request(call), await client.request(who)],
      stop: client.stop
    }
  }
})

const effects = (open: clients.Open, { call, inFlight }: Case, runtime = Runtime.defaultRuntime): Subject => ({
  server,
  start: async (environment) => {
    const scope = Effect.runSync(Scope.make())
    const client = await Effect.runPromise(Scope.extend(open(environment, server), scope))
    return {
      sample: effectLoop(runtime, inFlight, () => clients.json(client, call)),
      check: () => Effect.runPromise(Effect.all([clients.json(client, call), clients.json(client, who)])),
      stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
    }
  }
})

const traced = Effect.runSync(Effect.withTracer(Effect.runtime(), tracer))

interface Contender {
  readonly name: string
  readonly make: (at: Case) => Subject
  /** With 10 and with 50 requests in flight. */
  readonly target?: Readonly<Record<number, number>>
  /** Measured in the first case only: too far away to tell more. */
  readonly once?: boolean
}

const baseline = "undici Pool.request"
const stock = "Effect NodeHttpClient.layerUndici"
const agent = "Effect NodeHttpClient.layer"
const channel = "SecureChannel"
const dispatcher = "undici.request with NodeDispatcher"

const contenders: ReadonlyArray<Contender> = [
  { name: baseline, make: (at) => promises(viaRequest, at) },
  { name: "undici dispatch", make: (at) => promises(viaDispatch, at) },
  { name: channel, make: (at) => effects(clients.secureChannel(), at), target: { 10: 0.9, 50: 0.8 } },
  { name: `${channel}, audit in memory`, make: (at) => effects(clients.secureChannel("memory"), at) },
  {
    name: `${channel}, traced`,
    make: (at) => effects(clients.secureChannel(), at, traced),
    target: { 10: 0.78, 50: 0.72 }
  },
  { name: "Transport.client", make: (at) => effects(clients.transport, at), target: { 10: 0.88, 50: 0.8 } },
  { name: stock, make: (at) => effects(clients.undici, at) },
  { name: `${stock}, no tracer`, make: (at) => effects(clients.undiciWithoutTracer, at), once: true },
  { name: dispatcher, make: (at) => promises(clients.viaDispatcher, at), once: true },
  { name: "node https.Agent", make: (at) => promises(viaHttpsAgent, at), once: true },
  { name: agent, make: (at) => effects(clients.httpsAgent, at), once: true }
]

/** Subjects of the benchmark of the inspector. */
const inspectedContenders: ReadonlyArray<Contender> = [
  { name: "Transport.client, inspector", make: (at) => effects(inspected(false), at) },
  { name: "Transport.client, inspector with a reader", make: (at) => effects(inspected(true), at) }
]

const named = (contender: string, at: Case): string => `${contender}, ${at.name}`

export const request: Benchmark = {
  name: "request",
  title: "small JSON over ten mutual TLS connections",
  unit: perSecond("requests"),
  // After fewer, the compiler still works on what a request goes through, and the first rounds are its.
  warmUp: 40_000,
  servers: { [server]: plainServer },
  subjects: Object.fromEntries(
    [...contenders, ...inspectedContenders].flatMap(({ make, name }) =>
      cases.map((at) => [named(name, at), make(at)] as const)
    )
  ),
  rows: cases.flatMap((at, i) => [
    ...contenders
      .filter(({ once }) => i === 0 || once !== true)
      .map(
        ({ name, target: { [at.inFlight]: target } = {} }): Row => ({
          contender: named(name, at),
          baseline: named(baseline, at),
          group: name,
          ...(target === undefined ? undefined : { target })
        })
      ),
    { contender: named(channel, at), baseline: named(stock, at), group: `${channel} / ${stock}`, target: 4 },
    ...(i === 0 ? [{ contender: named(channel, at), baseline: named(agent, at) }] : [])
  ])
}
