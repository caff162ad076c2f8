/** An anchor outside a file shows losses that the file cannot show of itself. */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { IdentityProvider, SpiffeId } from "@agentweave/spiffe"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, PeerIdentity, SecureChannel } from "@agentweave/transport"
import { AuditAnchor, AuditFile, NodeAuditLog, NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { HttpClient, HttpRouter, HttpServer, HttpServerRequest } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, LogLevel, Option, Scope } from "effect"
import { kindOf, problemsOf, trustIn } from "../auditReports.js"
import { folder, refused } from "./auditEvents.js"
import { logFiles, until, world } from "./auditWorld.js"
import { host, realTime } from "./fixture.js"

const quiet = Logger.minimumLogLevel(LogLevel.None)

/** A world with an anchor on another volume, and a log that has run once. */
const anchored = Effect.gen(function* () {
  const { dir, open, path, ...rest } = yield* world
  const anchorPath = join(dir, "anchor.ndjson")
  const anchor = AuditAnchor.layerFile({ path: anchorPath })
  const run = (...numbers: ReadonlyArray<number>) =>
    Effect.gen(function* () {
      const { close, log } = yield* open({ anchor, checkpointEvery: 3 })
      for (const n of numbers) log.unsafeRecord(refused(n))
      yield* close
    })
  yield* run(1, 2, 3)
  const kept = () => AuditAnchor.parse(readFileSync(anchorPath, "utf8"))
  return { ...rest, dir, path, anchorPath, run, kept, trust: trustIn(rest.authority, "/web") }
})

it.scoped("an anchor keeps each checkpoint, in a file of its owner alone, and a whole log agrees with it", () =>
  Effect.gen(function* () {
    const { anchorPath, dir, kept, run, trust } = yield* anchored
    yield* run(4)
    const files = logFiles(dir)
    const checkpoints = files.flatMap(({ text }) => text.split("\n").filter((line) => line.includes('"checkpoint":')))
    expect(kept().map(({ checkpoint }) => checkpoint)).toEqual(checkpoints)
    expect(statSync(anchorPath).mode & 0o777).toBe(0o600)
    expect(AuditFile.verify(files, trust, kept())).toMatchObject({ verdict: "Verified", findings: [] })
  })
)

for (const [what, harm, begins] of [
  ["the live file is deleted", (path: string) => rmSync(path), "PredecessorMissing"],
  [
    "the live file is cut at a record",
    (path: string) => writeFileSync(path, `${readFileSync(path, "utf8").split("\n").slice(0, 2).join("\n")}\n`),
    "PredecessorCut"
  ],
  [
    "the file of the last session and its successors are deleted",
    (path: string) => {
      rmSync(path)
      for (const name of readdirSync(join(path, ".."))) if (/\.\d+$/.test(name)) rmSync(join(path, "..", name))
    },
    "PredecessorMissing"
  ]
] as const) {
  it.scoped(
    `while the log is stopped ${what}: the next file says so, uses no number twice, and verification shows it`,
    () =>
      Effect.gen(function* () {
        const { dir, kept, path, run, trust } = yield* anchored
        yield* run(4, 5)
        const last = kept().at(-1)?.seq ?? -1
        harm(path)
        const left = logFiles(dir)
        const [shown] = AuditFile.verify(left.length === 0 ? "" : left, trust, kept()).findings
        expect(shown).toMatchObject({ _tag: "Tampered" })

        yield* run(6)
        const files = logFiles(dir)
        const newest = files.at(-1)?.text ?? ""
        expect(newest).toContain(`{"seq":${last + 1},`)
        expect(newest).toContain(`"begins":"${begins}"`)
        expect(newest).toContain(`"to":${last}}`)
        const report = AuditFile.verify(files, trust, kept())
        expect(report.verdict).not.toBe("Verified")
        expect(report.verdict).not.toBe("Tampered")
        expect(report.findings.map(kindOf)).toContain("Lost")
        expect(report.lost.at(-1)?.to).toBe(last)
      })
  )
}

it.scoped(
  "without an anchor a live file that is deleted while the log is stopped leaves its place empty, which shows",
  () =>
    Effect.gen(function* () {
      const { dir, open, path } = yield* world
      const { close, log } = yield* open({ maxFileSize: 2_000 })
      for (let n = 0; logFiles(dir).length < 2; n++) {
        log.unsafeRecord(refused(n))
        yield* until(() => logFiles(dir).some(({ text }) => text.includes(`"maxConnections":${n}`)))
      }
      yield* close
      rmSync(path)
      yield* Effect.flatMap(open(), ({ close }) => close)
      expect(problemsOf(logFiles(dir))).toEqual(["PredecessorMissing"])
    })
)

it.scoped("an anchor that fails, or does not answer, does not stop the log", () =>
  Effect.gen(function* () {
    const { dir, open, path } = yield* world
    mkdirSync(join(dir, "anchor"))
    for (const anchor of [
      AuditAnchor.layerFile({ path: join(dir, "anchor") }),
      AuditAnchor.layerFile({ path: join(dir, "missing", "anchor") })
    ]) {
      const { close, log } = yield* open({ anchor })
      expect(log.unsafeRecord(refused(1))).toBeUndefined()
      yield* close
      expect(problemsOf(logFiles(dir))).toEqual([])
    }
    expect(readFileSync(path, "utf8")).toContain('"state":"Closed"')
  }).pipe(Effect.provide(quiet))
)

it.scoped("an anchor whose directory breaks a rule keeps nothing: every request fails with the field's name", () =>
  Effect.gen(function* () {
    const lost = { directory: ".", dir: "." }
    for (const [options, field] of [[{ directory: "" }, "directory"] as const, [lost, "dir"] as const]) {
      const error = yield* AuditAnchor.app(options).pipe(
        Effect.flip,
        Effect.provideService(PeerIdentity.PeerIdentity, { of: Option.none, ofSocket: Option.none }),
        Effect.provideService(
          HttpServerRequest.HttpServerRequest,
          HttpServerRequest.fromWeb(new Request("https://keeper.internal/audit-anchor"))
        )
      )
      expect(error).toMatchObject({ _tag: "InvalidConfigError", config: "AuditAnchor.app", field })
    }
  })
)

it.scoped("two workloads keep each other's checkpoints over a secure channel, and neither can touch the other's", () =>
  Effect.gen(function* () {
    yield* realTime
    const dir = yield* folder
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identityOf = (path: string) => Effect.map(authority.context({ path }), IdentityProvider.layerStatic)
    const keeper = yield* identityOf("/keeper")
    const memory = AuditLog.layerMemory([])
    const directory = join(dir, "kept")
    mkdirSync(directory)
    const server = yield* HttpRouter.empty.pipe(
      HttpRouter.mountApp("/audit-anchor", AuditAnchor.app({ directory }), { includePrefix: true }),
      HttpServer.serve(),
      Layer.provideMerge(
        NodeSecureServer.layer({
          port: 0,
          host,
          authorize: PeerMatcher.oneOf([authority.id("/web"), authority.id("/api")])
        })
      ),
      Layer.provide(keeper),
      Layer.provide(memory),
      Layer.build
    )
    const { address } = Context.get(server, HttpServer.HttpServer)
    const port = address._tag === "TcpAddress" ? address.port : 0

    /** Runs a workload's audit log once, anchored at the keeper. */
    const run = (workload: string, events: number) =>
      Effect.gen(function* () {
        const identity = yield* identityOf(workload)
        const connector = yield* Layer.build(
          NodeConnector.layer.pipe(Layer.provideMerge(identity), Layer.provideMerge(memory))
        )
        const channel = yield* Effect.provide(
          SecureChannel.make({ peer: authority.id("/keeper"), baseUrl: `https://${host}:${port}` }),
          connector
        )
        const anchor = AuditAnchor.layerChannel(channel)
        const scope = yield* Scope.make()
        const file = NodeAuditLog.layerFile({ path: join(dir, `${workload.slice(1)}.ndjson`) }).pipe(
          Layer.provide(anchor),
          Layer.provide(identity)
        )
        const log = Context.get(yield* Scope.extend(Layer.build(file), scope), AuditLog.AuditLog)
        for (let n = 0; n < events; n++) log.unsafeRecord(refused(n))
        yield* Scope.close(scope, Exit.void)
        return yield* Effect.flatMap(AuditAnchor.AuditAnchor, ({ latest }) => latest).pipe(Effect.provide(anchor))
      }).pipe(Effect.scoped)

    const web = Option.getOrThrow(yield* run("/web", 3))
    const api = Option.getOrThrow(yield* run("/api", 1))
    expect([web.seq, api.seq]).toEqual([5, 3])
    expect(web.log).not.toBe(api.log)
    const kept = readdirSync(directory).map((name) => AuditAnchor.parse(readFileSync(join(directory, name), "utf8")))
    expect(kept.map((all) => all.length)).toEqual([1, 1])
    expect(new Set(kept.map(([first]) => first?.log))).toEqual(new Set([web.log, api.log]))

    // A file that was cut while its workload was stopped is noticed when it starts again.
    const path = join(dir, "web.ndjson")
    writeFileSync(path, `${readFileSync(path, "utf8").split("\n").slice(0, 2).join("\n")}\n`)
    yield* run("/web", 1)
    expect(readFileSync(path, "utf8")).toContain('"begins":"PredecessorCut"')
  })
)

it.effect("options that break a rule are refused with the field's name", () =>
  Effect.gen(function* () {
    const members: Pick<SecureChannel.SecureChannel, SecureChannel.TypeId | "peerSpiffeId" | "mySpiffeId" | "request"> =
      {
        [SecureChannel.TypeId]: SecureChannel.TypeId,
        peerSpiffeId: SpiffeId.make("spiffe://example.org/keeper"),
        mySpiffeId: Effect.never,
        request: () => Effect.never
      }
    const channel = Object.assign(
      HttpClient.make(() => Effect.never),
      members
    )
    const misspelled: object = { nam: "web" }
    const rows = [
      [AuditAnchor.layerFile({ path: "" }), "path"],
      [AuditAnchor.layerChannel(channel, { name: "" }), "name"],
      [AuditAnchor.layerChannel(channel, { url: "" }), "url"],
      [AuditAnchor.layerChannel(channel, misspelled), "nam"]
    ] as const
    for (const [layer, field] of rows) {
      const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
      expect(error).toMatchObject({ _tag: "InvalidConfigError", field })
    }
  })
)
