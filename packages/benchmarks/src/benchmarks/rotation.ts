import { IdentityProvider, type X509Context } from "@agentweave/spiffe"
import { SecureChannel } from "@agentweave/transport"
import { HttpServer, HttpServerResponse } from "@effect/platform"
import { Effect, Exit, Layer, Runtime, Schedule, Scope, Stream, SubscriptionRef } from "effect"
import * as clients from "../clients/effects.js"
import { connections, originOf } from "../clients/promises.js"
import { type Benchmark, type Environment, perSecond, type ServerSubject, type Subject } from "../harness/Benchmark.js"
import { contextOf, leafId } from "../harness/credentials.js"
import { effectLoop } from "../harness/loops.js"
import { small } from "../servers/plain.js"
import { serveSecurely } from "../servers/secure.js"

const inFlight = 50
const interval = "100 millis"

/** An identity that has another certificate every 100 milliseconds, or stays as it is. */
const identity = (rotates: boolean, { credentials }: Omit<Environment, "ports">) => {
  const contexts = credentials.leaves.map((leaf) => contextOf(credentials, leaf))
  const at = (i: number) => contexts[i % contexts.length] as X509Context.X509Context
  return Layer.scoped(
    IdentityProvider.IdentityProvider,
    Effect.gen(function* () {
      const current = yield* SubscriptionRef.make(at(0))
      let rotations = 0
      const rotate = Effect.suspend(() => SubscriptionRef.set(current, at(++rotations)))
      if (rotates) yield* Effect.forkScoped(Effect.repeat(rotate, Schedule.spaced(interval)))
      return { x509Context: SubscriptionRef.get(current), changes: Stream.orDie(current.changes) }
    })
  )
}

const server = (rotates: boolean): ServerSubject => ({
  start: (environment) =>
    serveSecurely(
      identity(rotates, environment),
      HttpServer.serve(Effect.sync(() => HttpServerResponse.unsafeJson(small)))
    )
})

/** A request that fails ends the loop, and with it the run: there is to be none. */
const requests = (rotates: boolean, serverName: string): Subject => ({
  server: serverName,
  start: async (environment) => {
    const scope = Effect.runSync(Scope.make())
    const open = Effect.gen(function* () {
      const context = yield* Layer.build(clients.services(environment, "memory", identity(rotates, environment)))
      const baseUrl = originOf(environment, serverName)
      return yield* Effect.provide(SecureChannel.make({ peer: leafId, baseUrl, config: { connections } }), context)
    })
    const { execute } = await Effect.runPromise(Scope.extend(open, scope))
    const operation = () => clients.json({ base: "", execute }, { method: "GET", path: "/json", body: "" })
    return {
      sample: effectLoop(Runtime.defaultRuntime, inFlight, operation),
      check: () => Effect.runPromise(operation()),
      stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
    }
  }
})

const rotating = "rotation every 100 ms"
const still = "no rotation"

export const rotation: Benchmark = {
  name: "rotation",
  title: "requests while both ends rotate their certificates; none may fail",
  unit: perSecond("requests"),
  leaves: 50,
  cpuOf: "both",
  // Several rotations fall into each side of a round.
  millis: 400,
  servers: { [rotating]: server(true), [still]: server(false) },
  subjects: { [rotating]: requests(true, rotating), [still]: requests(false, still) },
  rows: [
    { contender: still, baseline: still },
    { contender: rotating, baseline: still, target: 0.8 }
  ]
}
