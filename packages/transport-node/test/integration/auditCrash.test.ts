/**
 * An audit file after its process was killed. `AUDIT_CRASHES` says how many times a process under load is
 * killed; 3 by default, for each costs the start of a process.
 */
import { spawn } from "node:child_process"
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as IdentityProvider from "@agentweave/spiffe/IdentityProvider"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { AuditFile, NodeAuditLog } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { problemsOf } from "../auditReports.js"

const crashes = Number(process.env["AUDIT_CRASHES"] ?? 3)

/**
 * The age in milliseconds that the oldest lost event may have: a hundred flush windows of the child, for a loaded machine
 * may not run the child's writes for a while. That a window is kept is tested with `TestClock`, in `audit.test.ts`.
 */
const longestLoss = 10_000

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "crash-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

interface Acknowledged {
  readonly number: number
  readonly time: number
}

const startChild = (path: string, identityFile: string) => {
  const entry = fileURLToPath(new URL("./auditCrashChild.ts", import.meta.url))
  return spawn(process.execPath, ["--conditions=@agentweave/source", "--import", "tsx", entry, path, identityFile], {
    stdio: ["ignore", "pipe", "inherit"],
    cwd: fileURLToPath(new URL(".", import.meta.url))
  })
}

/** Runs the child, kills it once its file has so many bytes, and gives the events that it had acknowledged by then. */
const crash = (path: string, identityFile: string, size: number): Effect.Effect<ReadonlyArray<Acknowledged>> =>
  Effect.async((resume) => {
    const child = startChild(path, identityFile)
    let output = ""
    child.stdout.on("data", (chunk) => {
      output += chunk
      if (statSync(path).size >= size) child.kill("SIGKILL")
    })
    child.once("close", () => {
      const whole = output.slice(0, output.lastIndexOf("\n")).split("\n")
      resume(
        Effect.succeed(
          whole.map((line) => {
            const [number = -1, time = -1] = line.split(" ").map(Number)
            return { number, time }
          })
        )
      )
    })
    return Effect.sync(() => {
      child.kill("SIGKILL")
    })
  })

/** The numbers of the child's events in a file; a torn last record is none. */
const numbersIn = (text: string): ReadonlyArray<number> =>
  text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .flatMap((line) => (line === "" ? [] : (JSON.parse(line).event?.maxConnections ?? [])))

/** The file and those it went on from, joined in order. */
const joined = (dir: string): string =>
  readdirSync(dir)
    .filter((name) => /^audit\.ndjson\.\d+$/.test(name))
    .sort((a, b) => Number(a.split(".").at(-1)) - Number(b.split(".").at(-1)))
    .concat("audit.ndjson")
    .map((name) => readFileSync(join(dir, name), "utf8"))
    .join("")

const world = Effect.gen(function* () {
  const dir = yield* folder
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const credentials = yield* authority.issueRaw({ path: "/web", ttl: "1 day" })
  const identityFile = join(dir, "identity.json")
  const base64 = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString("base64")
  writeFileSync(
    identityFile,
    JSON.stringify({
      certificate: base64(credentials.certificates[0]),
      key: base64(Redacted.value(credentials.privateKey).export({ type: "pkcs8", format: "der" })),
      bundle: base64(authority.bundle.authorities[0])
    }),
    { mode: 0o600 }
  )
  const path = join(dir, "audit.ndjson")
  const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/web" }))
  /** A session that is closed in order. */
  const session = Effect.scoped(Layer.build(Layer.provide(NodeAuditLog.layerFile({ path }), identity)))
  return { dir, identityFile, path, session }
})

it.scopedLive(
  `killed ${crashes} times under load, the file is interrupted and never tampered with, and goes on`,
  () =>
    Effect.gen(function* () {
      const { dir, identityFile, path, session } = yield* world
      let longest = 0
      for (let round = 0; round < crashes; round++) {
        const acknowledged = yield* crash(path, identityFile, 4_000 + ((round * 37_300) % 200_000))
        const text = readFileSync(path, "utf8")
        expect(AuditFile.verify(text)).toMatchObject({ isClosed: false })
        expect(AuditFile.verify(text).verdict).not.toBe("Tampered")
        // In order and without a gap, up to some point.
        const written = numbersIn(text)
        expect(written.length).toBeGreaterThan(0)
        expect(written).toEqual(Array.from({ length: written.length }, (_, n) => n))
        const last = acknowledged.at(-1)?.time ?? 0
        const lost = acknowledged.filter(({ number }) => number >= written.length)
        const oldest = lost[0]?.time ?? last
        longest = Math.max(longest, last - oldest)
        expect(last - oldest).toBeLessThan(longestLoss)
      }
      if (process.env["AUDIT_CRASHES"] !== undefined) console.log(`the oldest event lost was ${longest} ms old`)
      expect(AuditFile.verify(joined(dir)).isClosed).toBe(false)
      yield* session
      expect(AuditFile.verify(joined(dir)).isClosed).toBe(true)
      // Of each end that was killed it cannot be told whether it was cut off, nor by whom records after its last signature
      // were written: there are none where the signature was the last that was written.
      const problems = problemsOf(joined(dir))
      expect(problems.filter((kind) => kind === "TailOpen")).toHaveLength(crashes)
      expect(problems.filter((kind) => kind !== "TailOpen" && kind !== "Unsigned")).toEqual([])
    }),
  30_000 + crashes * 10_000
)

it.scoped("a record torn by a crash is not part of the chain, which goes on where it ended", () =>
  Effect.gen(function* () {
    const { dir, path, session } = yield* world
    yield* session
    appendFileSync(path, '{"seq":3,"prev":"ab')
    expect(AuditFile.verify(readFileSync(path, "utf8"))).toMatchObject({ isClosed: false, records: 3 })
    yield* session
    expect(AuditFile.verify(joined(dir))).toMatchObject({ isClosed: true, records: 6 })
    expect(problemsOf(joined(dir))).toEqual([])
  })
)

it.scoped("the chain goes on after a crash that left no file, or only the beginning of its first record", () =>
  Effect.gen(function* () {
    const { dir, path, session } = yield* world
    yield* session
    renameSync(path, `${path}.2`)
    yield* session
    renameSync(path, `${path}.5`)
    writeFileSync(path, '{"seq":6,"pr')
    yield* session
    expect(AuditFile.verify(joined(dir))).toMatchObject({ isClosed: true, records: 9 })
    // It could as well have been deleted.
    expect(problemsOf(joined(dir))).toEqual(["PredecessorMissing", "PredecessorMissing"])
  })
)

it.scopedLive("of two processes on one path the second is refused, until the first is gone", () =>
  Effect.gen(function* () {
    const { dir, identityFile, path, session } = yield* world
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => startChild(path, identityFile)),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    // It acknowledges its first event once its log is open.
    yield* Effect.async<void>((resume) => void child.stdout.once("data", () => resume(Effect.void)))
    const error = yield* Effect.flip(session)
    expect(error).toMatchObject({ _tag: "AuditError", reason: "Failed" })
    expect(error.message).toContain(`process ${child.pid}`)
    yield* Effect.async<void>((resume) => {
      child.once("close", () => resume(Effect.void))
      child.kill("SIGKILL")
    })
    yield* session
    const surprising = problemsOf(joined(dir)).filter((kind) => kind !== "TailOpen" && kind !== "Unsigned")
    expect(surprising).toEqual([])
    expect(AuditFile.verify(joined(dir)).isClosed).toBe(true)
  })
)
