/**
 * Two workloads in two processes, with identities from an embedded development authority: what is accepted, and what is
 * refused and why. Exits with 0 when everything came as expected. With `--inspect` both workloads show themselves on a page
 * of their own, and it goes on until it is interrupted.
 */
import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { IdentityProvider, PeerMatcher, SpiffeId, X509BundleSet, type X509Context } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import type { AuditEvent } from "@agentweave/transport"
import { AuditFile } from "@agentweave/transport-node"
import { WorkloadApi, WorkloadApiServer, WorkloadEndpoint } from "@agentweave/workload-api"
import { FileSystem } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Context, Deferred, Duration, Effect, Layer, Queue } from "effect"
import { intruders } from "./quickstart/intruders.js"
import {
  apiId,
  bold,
  green,
  type Inspected,
  type Message,
  type Ready,
  red,
  say,
  trustDomain,
  type Verdict,
  webId
} from "./quickstart/story.js"

const isInspected = process.argv.includes("--inspect")

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

/** Where the two workloads get their identities: from the agent there is, or from an authority of our own. */
const identities = (folder: string) =>
  Effect.gen(function* () {
    const agent = process.env[WorkloadEndpoint.variable]
    if (agent !== undefined && agent !== "") {
      const identity = Context.get(yield* Layer.build(WorkloadApi.layer()), IdentityProvider.IdentityProvider)
      const { bundles, svid } = yield* identity.x509Context
      yield* say("agent", `${agent} says that we are ${svid.spiffeId}`)
      return { authority: undefined, bundles, api: agent, web: agent, apiId: svid.spiffeId, webId: svid.spiffeId }
    }
    const authority = yield* DevAuthority.make({ trustDomain })
    yield* say("dev-ca", `an authority for ${trustDomain}, for as long as this program runs`)
    const api = yield* publish(folder, "api", yield* authority.context({ path: "/api" }))
    const web = yield* publish(folder, "web", yield* authority.context({ path: "/web" }))
    return { authority, bundles: X509BundleSet.of(authority.bundle), api, web, apiId, webId }
  })

/** Reads an audit file when its process has ended: is it as it was written, and has each attempt one outcome? */
const auditVerdict = (folder: string, who: string, trust: AuditFile.Trust) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const text = yield* fs.readFileString(`${folder}/${who}.ndjson`)
    const { verdict } = AuditFile.verify(text, trust)
    const count = (tag: string) => text.split("\n").filter((line) => line.includes(`"_tag":"${tag}"`)).length
    const attempts = count("ConnectionAttempted")
    const outcomes = count("ConnectionEstablished") + count("ConnectionRefused")
    yield* say(who, `audit file: ${verdict}, ${attempts} attempts on record, ${outcomes} outcomes`)
    return {
      _tag: "Verdict" as const,
      what: `the ${who}'s audit file`,
      expected: "Verified, every attempt has one outcome",
      actual: `${verdict}, ${attempts === outcomes ? "every attempt has one outcome" : `${attempts} attempts, ${outcomes} outcomes`}`
    }
  })

/** Shows what came of it, and where both workloads can be looked at until the program is interrupted. */
const look = (verdicts: ReadonlyArray<Verdict>, pages: ReadonlyArray<Inspected>) =>
  Effect.gen(function* () {
    yield* show(verdicts)
    console.log(`\n${bold("look at the processes")} (Ctrl-C ends them)`)
    for (const { url, who } of pages) console.log(`  ${who.padEnd(8)} ${url}`)
    return yield* Effect.never
  })

const story = (folder: string, verdicts: Array<Verdict>) =>
  Effect.gen(function* () {
    const ids = yield* identities(folder)
    const ready = yield* Deferred.make<Ready>()
    const goesOn = yield* Deferred.make<void>()
    const pages: Array<Inspected> = []
    const refusals = yield* Queue.unbounded<Extract<AuditEvent.AuditEvent, { readonly _tag: "ConnectionRefused" }>>()
    const onMessage = (message: Message) => {
      switch (message._tag) {
        case "Ready":
          return Deferred.unsafeDone(ready, Effect.succeed(message))
        case "Verdict":
          verdicts.push(message)
          return
        case "Inspected":
          pages.push(message)
          return
        case "GoesOn":
          return Deferred.unsafeDone(goesOn, Effect.void)
        case "Audited":
          if (message.event._tag === "ConnectionRefused") Queue.unsafeOffer(refusals, message.event)
      }
    }
    const env = {
      QUICKSTART_API_ID: ids.apiId,
      QUICKSTART_WEB_ID: ids.webId,
      QUICKSTART_AUDIT: folder,
      QUICKSTART_INSPECT: isInspected ? "yes" : "no"
    }

    yield* start("./quickstart/server.ts", { ...env, SPIFFE_ENDPOINT_SOCKET: ids.api }, onMessage)
    const { port } = yield* Deferred.await(ready)

    const client = yield* start(
      "./quickstart/client.ts",
      { ...env, SPIFFE_ENDPOINT_SOCKET: ids.web, QUICKSTART_URL: `https://127.0.0.1:${port}` },
      (message) => {
        if (message._tag !== "Audited") onMessage(message)
      }
    )
    if (isInspected) yield* Deferred.await(goesOn)
    else {
      const actual = `exit ${yield* exited(client)}`
      verdicts.push({ _tag: "Verdict", what: "the client ends by itself", expected: "exit 0", actual })
    }

    // What the server noted of the client's own refusal of it comes first, and is not an intruder's.
    yield* Queue.takeAll(refusals)
    for (const { attempt, expected, who } of yield* intruders(port, ids.authority)) {
      const answer = yield* attempt
      const refusal = yield* Queue.take(refusals)
      const actual = answer === "refused" ? `${refusal.error} ${refusal.reason}` : "accepted"
      verdicts.push({ _tag: "Verdict", what: who, expected, actual })
    }
    if (isInspected) return yield* look(verdicts, pages)
    const signedBy = (id: string) => ({ bundles: ids.bundles, expected: PeerMatcher.exactly(SpiffeId.make(id)) })
    return { server: signedBy(ids.apiId), client: signedBy(ids.webId) }
  })

const quickstart = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "quickstart-" })
  const verdicts: Array<Verdict> = []
  const { client, server } = yield* Effect.scoped(story(folder, verdicts))
  verdicts.push(yield* auditVerdict(folder, "server", server), yield* auditVerdict(folder, "client", client))
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
    Effect.timeoutFail({
      duration: isInspected ? Duration.infinity : "120 seconds",
      onTimeout: () => new Error("the quickstart did not end by itself")
    }),
    Effect.provide(NodeContext.layer)
  )
)
