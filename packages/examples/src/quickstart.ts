/**
 * Two workloads in two processes, with identities from an embedded development authority: what is accepted, and what is
 * refused and why. Exits with 0 when everything came as expected.
 */
import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { IdentityProvider, type X509Context } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import type { AuditEvent } from "@agentweave/transport"
import { WorkloadApiServer } from "@agentweave/workload-api"
import { FileSystem } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Context, Deferred, Effect, Layer, Queue } from "effect"
import { intruders } from "./quickstart/intruders.js"
import { bold, green, type Message, type Ready, red, say, trustDomain, type Verdict } from "./quickstart/story.js"

/** A Workload API of its own for one workload, as an agent would give it. */
const publish = (folder: string, name: string, context: X509Context.X509Context) =>
  Effect.gen(function* () {
    const source = Context.get(
      yield* Layer.build(IdentityProvider.layerStatic(context)),
      IdentityProvider.IdentityProvider
    )
    const server = yield* WorkloadApiServer.make({ socketPath: `${folder}/${name}.sock`, source })
    return server.endpoint
  })

/** Runs a process of the story in the scope; its messages go to `onMessage`. */
const start = (module: string, env: Record<string, string>, onMessage: (message: Message) => void) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = fork(fileURLToPath(new URL(module, import.meta.url)), {
        execArgv: process.execArgv,
        env: { ...process.env, ...env }
      })
      child.on("message", (message) => onMessage(message as Message))
      return child
    }),
    (child) =>
      Effect.zipRight(
        Effect.sync(() => child.kill("SIGTERM")),
        exited(child)
      )
  )

const exited = (child: ChildProcess): Effect.Effect<number> =>
  Effect.async((resume) => {
    const done = () => resume(Effect.succeed(child.exitCode ?? 1))
    if (child.exitCode !== null || child.signalCode !== null) return done()
    child.once("exit", done)
  })

const show = (verdicts: ReadonlyArray<Verdict>) =>
  Effect.sync(() => {
    console.log(`\n${bold("summary")}`)
    for (const { actual, expected, what } of verdicts) {
      const asExpected = actual === expected
      const mark = asExpected ? green("ok  ") : red("BAD ")
      console.log(`  ${mark} ${what.padEnd(42)} ${actual}${asExpected ? "" : red(`, expected ${expected}`)}`)
    }
  })

const quickstart = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "quickstart-" })
  const authority = yield* DevAuthority.make({ trustDomain })
  yield* say("dev-ca", `an authority for ${trustDomain}, for as long as this program runs`)
  const apiSocket = yield* publish(folder, "api", yield* authority.context({ path: "/api" }))
  const webSocket = yield* publish(folder, "web", yield* authority.context({ path: "/web" }))

  const verdicts: Array<Verdict> = []
  const ready = yield* Deferred.make<Ready>()
  const refusals = yield* Queue.unbounded<Extract<AuditEvent.AuditEvent, { readonly _tag: "ConnectionRefused" }>>()
  const onMessage = (message: Message) => {
    switch (message._tag) {
      case "Ready":
        return Deferred.unsafeDone(ready, Effect.succeed(message))
      case "Verdict":
        verdicts.push(message)
        return
      case "Audited":
        if (message.event._tag === "ConnectionRefused") Queue.unsafeOffer(refusals, message.event)
    }
  }

  yield* start("./quickstart/server.ts", { SPIFFE_ENDPOINT_SOCKET: apiSocket }, onMessage)
  const { port } = yield* Deferred.await(ready)

  const client = yield* start(
    "./quickstart/client.ts",
    { SPIFFE_ENDPOINT_SOCKET: webSocket, QUICKSTART_URL: `https://127.0.0.1:${port}` },
    (message) => {
      if (message._tag === "Verdict") onMessage(message)
    }
  )
  const status = yield* exited(client)
  verdicts.push({ _tag: "Verdict", what: "the client ends by itself", expected: "exit 0", actual: `exit ${status}` })

  // What the server noted of the client's own refusal of it comes first, and is not an intruder's.
  yield* Queue.takeAll(refusals)
  for (const { attempt, expected, who } of yield* intruders(port, authority)) {
    const answer = yield* attempt
    const refusal = yield* Queue.take(refusals)
    const actual = answer === "refused" ? `${refusal.error} ${refusal.reason}` : "accepted"
    verdicts.push({ _tag: "Verdict", what: who, expected, actual })
  }

  yield* show(verdicts)
  return verdicts.every(({ actual, expected }) => actual === expected)
})

NodeRuntime.runMain(
  Effect.flatMap(Effect.scoped(quickstart), (asExpected) =>
    Effect.sync(() => {
      console.log(asExpected ? green("\neverything came as expected") : red("\nsomething came otherwise"))
      process.exitCode = asExpected ? 0 : 1
    })
  ).pipe(
    Effect.timeoutFail({ duration: "120 seconds", onTimeout: () => new Error("the quickstart did not end by itself") }),
    Effect.provide(NodeContext.layer)
  )
)
