/**
 * Three runners of a cluster in processes of their own, one of which is killed under load, and a fourth that does not belong to
 * them. Exits with 0 when no entry that was acknowledged is lost and the fourth got nothing.
 */
import { SecureSocketRunner } from "@agentweave/cluster"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog } from "@agentweave/transport"
import { WorkloadApiServer } from "@agentweave/workload-api"
import { FileSystem } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Context, Effect, Layer, Queue } from "effect"
import { Account, host, layerPlatform, type Place } from "./cluster/ledger.js"
import { ended, freePorts, goesOn, type Refusal, startRunner } from "./cluster/processes.js"

const accounts = 24
const senders = 6

const say = (text: string): Effect.Effect<void> => Effect.sync(() => console.log(text))

/** A Workload API for each process, as an agent would give it. */
const identities = Effect.fnUntraced(function* (folder: string) {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const publish = Effect.fnUntraced(function* (name: string, path: string) {
    const source = yield* Layer.build(DevAuthority.layerIdentity(authority, { path }))
    const provider = Context.get(source, IdentityProvider.IdentityProvider)
    return (yield* WorkloadApiServer.make({ socketPath: `${folder}/${name}.sock`, source: provider })).endpoint
  })
  return {
    client: yield* publish("client", "/client"),
    stranger: yield* publish("stranger", "/stranger"),
    runners: yield* Effect.forEach([1, 2, 3], (number) => publish(`runner-${number}`, `/runner/${number}`))
  }
})

/** Sends entries until it is told to stop, and keeps those that were acknowledged, with the port of the runner that took each. */
const makeLoad = Effect.gen(function* () {
  const client = yield* Account.client
  const acknowledged = new Map<string, number>()
  /** The runner that took the newest entry of each account. */
  const takenBy = new Map<string, number>()
  const news = yield* Queue.sliding<void>(1)
  let next = 0
  let isOver = false
  const send = Effect.gen(function* () {
    const key = `entry-${next++}`
    const account = `account-${next % accounts}`
    const port = yield* client(account).Enter({ key })
    acknowledged.set(key, port)
    takenBy.set(account, port)
    yield* Queue.offer(news, undefined)
  })
  return {
    acknowledged,
    again: (key: string) => client(`account-${(Number(key.replace("entry-", "")) + 1) % accounts}`).Enter({ key }),
    /** Ends when all entries that were sent are acknowledged. */
    run: Effect.forEach(Array.from({ length: senders }), () => Effect.repeat(send, { until: () => isOver }), {
      concurrency: "unbounded",
      discard: true
    }),
    stop: Effect.sync(() => {
      isOver = true
    }),
    /** Waits until each account was last served by one of these runners, and each of these has served one. */
    servedBy: (ports: ReadonlyArray<number>) =>
      Effect.repeat(Queue.take(news), {
        until: () => {
          const serving = new Set(takenBy.values())
          return takenBy.size === accounts && serving.size === ports.length && ports.every((port) => serving.has(port))
        }
      })
  }
})

/** What the accounts have taken, as the runners' files have it. */
const entriesOf = Effect.fnUntraced(function* ({ folder, ports }: Place) {
  const fs = yield* FileSystem.FileSystem
  const texts = yield* Effect.forEach(ports, (port) =>
    Effect.orElseSucceed(fs.readFileString(`${folder}/entries-${port}`), () => "")
  )
  return { all: new Set(texts.join("").split("\n")), ofFourth: texts[3] ?? "" }
})

/** Waits until each of the runners has refused the one at the address. */
const refusedByAll = (refusals: Queue.Dequeue<Refusal>, address: string, by: ReadonlyArray<number>) => {
  const left = new Set(by)
  return Effect.repeat(Queue.take(refusals), {
    until: (refusal) => {
      if (refusal.address === address && refusal.reason === "UnexpectedPeer") left.delete(refusal.by)
      return left.size === 0
    }
  })
}

const story = Effect.fnUntraced(function* (place: Place) {
  const endpoints = yield* identities(place.folder)
  const refusals = yield* Queue.unbounded<Refusal>()
  const onRefusal = (refusal: Refusal) => void Queue.unsafeOffer(refusals, refusal)
  const [first = 0, second = 0, third = 0, fourth = 0] = place.ports
  const runners = yield* Effect.forEach(endpoints.runners, (endpoint, index) =>
    startRunner(place, index + 1, endpoint, { onRefusal })
  )
  const Client = SecureSocketRunner.layerClientOnly().pipe(
    Layer.provide(layerPlatform({ folder: place.folder, ports: place.ports }, endpoints.client)),
    Layer.provide(AuditLog.layerMemory([]))
  )
  const load = yield* Effect.provide(makeLoad, yield* Layer.build(Client))
  const loading = yield* Effect.fork(load.run)

  yield* Effect.raceFirst(load.servedBy([first, second, third]), Effect.raceAll(runners.map(goesOn)))
  yield* say(`three runners serve ${accounts} accounts, ${load.acknowledged.size} entries acknowledged`)

  // Two that have another identity than the one that belongs at the fourth address: one says so, the other does not.
  const honest = yield* startRunner(place, 4, endpoints.stranger)
  yield* startRunner(place, 4, endpoints.stranger, { lies: true })
  const exitCode = yield* ended(honest.child)
  const isTyped = honest.output().includes("OtherIdentity")
  yield* say(`a fourth with another identity ends by itself: exit ${exitCode}${isTyped ? ", OtherIdentity" : ""}`)
  yield* refusedByAll(refusals, `${host}:${fourth}`, [1, 2, 3])
  yield* say("a fourth that says it belongs there is registered, and refused by all three")

  const before = load.acknowledged.size
  const ofKilled = Array.from(load.acknowledged).find(([, port]) => port === second)
  runners[1]?.child.kill("SIGKILL")
  yield* load.servedBy([first, third])
  yield* say(
    `the second is killed: its accounts are served by the others, ${load.acknowledged.size - before} entries on`
  )

  yield* load.stop
  yield* loading.await
  const { all, ofFourth } = yield* entriesOf(place)
  const lost = Array.from(load.acknowledged.keys()).filter((key) => !all.has(key))
  const kept = ofKilled === undefined ? undefined : yield* load.again(ofKilled[0])
  yield* say(
    `${load.acknowledged.size} entries acknowledged, ${lost.length} lost; the fourth took ${ofFourth === "" ? "none" : ofFourth}`
  )
  return {
    "the fourth is told why it cannot join": exitCode !== 0 && isTyped,
    "the fourth takes no entry": ofFourth === "" && !Array.from(load.acknowledged.values()).includes(fourth),
    "no acknowledged entry is lost": lost.length === 0,
    "an answer of the killed runner is kept": kept === second
  }
})

const cluster = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "cluster-" })
  const found = yield* Effect.scoped(story({ folder, ports: yield* freePorts(4) }))
  for (const [what, holds] of Object.entries(found)) yield* say(`${holds ? "ok " : "BAD"} ${what}`)
  return Object.values(found).every((holds) => holds)
})

NodeRuntime.runMain(
  Effect.flatMap(Effect.scoped(cluster), (asExpected) =>
    Effect.sync(() => {
      process.exitCode = asExpected ? 0 : 1
    })
  ).pipe(
    Effect.timeoutFail({ duration: "110 seconds", onTimeout: () => new Error("the cluster did not end by itself") }),
    Effect.provide(NodeContext.layer)
  )
)
