/**
 * Random lives of honest logs: rotation, restarts, an agent that is away, a full disk, kills and steps of the clock. Whatever
 * happens, no such log is ever called tampered with; and without an accident it is verified. `AUDIT_HISTORIES` says how many
 * are lived through, 20 by default, and `AUDIT_SEED` which is the first.
 */
import { copyFileSync, linkSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"
import { IdentityProvider, X509BundleSet, X509Context, type X509Svid } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import type { AuditLog } from "@agentweave/transport"
import { AuditFile } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import {
  Effect,
  Exit,
  Layer,
  Logger,
  LogLevel,
  Random,
  Scope,
  Stream,
  SubscriptionRef,
  TestClock,
  TestContext
} from "effect"
import type { OpenFile } from "../../src/internal/audit/files.js"
import { make } from "../../src/internal/audit/writer.js"
import { kindOf, type TextFile, trustIn } from "../auditReports.js"
import { folder, refused, started } from "./auditEvents.js"

const histories = Number(process.env["AUDIT_HISTORIES"] ?? 20)
const firstSeed = Number(process.env["AUDIT_SEED"] ?? 0)

type Step = "record" | "request" | "pass" | "rotate" | "restart" | "away" | "full" | "kill" | "back" | "forward"

/** Copies the files of a log as they are; `false` when one was renamed meanwhile. */
const copyAll = (from: string, to: string): boolean => {
  mkdirSync(to)
  // A file may have two names in the middle of being renamed.
  const copies = new Map<number, string>()
  try {
    for (const name of readdirSync(from)) {
      if (name.endsWith(".lock")) continue
      const { ino } = statSync(join(from, name))
      const copy = copies.get(ino)
      if (copy === undefined) copyFileSync(join(from, name), join(to, name))
      else linkSync(copy, join(to, name))
      copies.set(ino, join(to, name))
    }
    return true
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return false
    throw cause
  }
}

/** The findings that each accident explains. */
const explained: { readonly [step in Step]?: ReadonlyArray<string> } = {
  // No SVID was valid when the records came.
  away: ["Unsigned"],
  full: ["Dropped", "Unsigned", "TailOpen"],
  kill: ["TailOpen", "PredecessorMissing", "Unsigned"],
  // The SVID in use is not valid at that time.
  back: ["Unsigned"],
  forward: ["Unsigned"]
}

const calm: ReadonlyArray<Step> = ["record", "request", "pass", "rotate", "restart"]
const any: ReadonlyArray<Step> = [...calm, "away", "full", "kill", "back", "forward"]

/** A disk that can be full. */
const disk = () => {
  const state = { isFull: false }
  const openFile = async (name: string, flags: number, mode: number): Promise<OpenFile> => {
    const file = await open(name, flags, mode)
    return {
      appendFile: async (bytes) => {
        if (!state.isFull) return file.appendFile(bytes)
        await file.appendFile(bytes.subarray(0, bytes.length / 3))
        throw new Error("ENOSPC: no space left on device")
      },
      truncate: (size) => file.truncate(size),
      datasync: () => file.datasync(),
      chmod: (mode) => file.chmod(mode),
      stat: (how) => file.stat(how),
      close: () => file.close()
    }
  }
  return { state, openFile }
}

const logFiles = (dir: string): ReadonlyArray<TextFile> =>
  readdirSync(dir)
    .filter((name) => /^audit\.ndjson(\.\d+)?$/.test(name))
    .map((name) => ({ name, text: readFileSync(join(dir, name), "utf8") }))
    .filter(({ text }) => text !== "")
    .toSorted((a, b) => numberOf(a) - numberOf(b))

const numberOf = ({ text }: TextFile): number => Number(/^\{"seq":(\d+)/.exec(text)?.[1])

/** Lets flush windows pass while the disk does what it does. */
const windows = Effect.repeatN(
  Effect.zipRight(
    TestClock.adjust("100 millis"),
    Effect.promise(() => new Promise<void>(setImmediate))
  ),
  12
)

const live = (seed: number, steps: ReadonlyArray<Step>) =>
  Effect.gen(function* () {
    const random = Random.make(seed)
    const below = (n: number) => Random.nextIntBetween(0, n).pipe(Effect.withRandom(random))
    const root = yield* folder
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    // Far enough from the beginning to step back.
    yield* TestClock.adjust("200 days")
    const issue = authority.issue({ path: "/web", ttl: "10 minutes" })
    const bundles = X509BundleSet.of(authority.bundle)
    const contextOf = (svid: X509Svid.X509Svid) => X509Context.make({ svid, bundles })
    const current = yield* SubscriptionRef.make(contextOf(yield* issue))
    const renew = Effect.flatMap(issue, (svid) => SubscriptionRef.set(current, contextOf(svid)))
    const identity = Layer.succeed(IdentityProvider.IdentityProvider, {
      x509Context: SubscriptionRef.get(current),
      changes: Stream.orDie(current.changes)
    })
    const { openFile, state } = disk()
    let dir = join(root, "0")
    mkdirSync(dir)
    let sessions: { readonly log: AuditLog.AuditLog["Type"]; readonly scope: Scope.CloseableScope } | undefined
    const start = Effect.gen(function* () {
      const scope = yield* Scope.make()
      const log = yield* make(
        { path: join(dir, "audit.ndjson"), maxFileSize: 6_000, checkpointEvery: 7 },
        openFile
      ).pipe(Effect.provide(identity), Scope.extend(scope))
      sessions = { log, scope }
      return sessions
    })
    let session = yield* start
    const happened = new Set<Step>()
    let n = 0
    const record = () => session.log.unsafeRecord(refused(n++))
    const restart = Effect.gen(function* () {
      yield* Scope.close(session.scope, Exit.void)
      session = yield* start
    })
    const act: { readonly [step in Step]: Effect.Effect<void, unknown, Scope.Scope> } = {
      record: Effect.map(below(90), (many) => {
        for (let i = 0; i < many; i++) record()
      }),
      request: Effect.sync(() => {
        session.log.unsafeRecord(started(n++))
      }),
      pass: windows,
      rotate: Effect.zipRight(TestClock.adjust("4 minutes"), Effect.zipRight(renew, windows)),
      restart,
      // The SVID expires, and its successor comes later.
      away: Effect.gen(function* () {
        yield* TestClock.adjust("11 minutes")
        record()
        yield* windows
        yield* renew
        yield* windows
      }),
      full: Effect.gen(function* () {
        state.isFull = true
        for (let i = 0; i < 3; i++) record()
        yield* windows
        for (let i = 0; i < 3; i++) record()
        state.isFull = false
        yield* windows
      }),
      // The files as they are at this instant are all that is left; the end of the last one may be torn.
      kill: Effect.gen(function* () {
        for (let i = 0; i < 5; i++) record()
        const turns = yield* below(6)
        yield* TestClock.adjust("100 millis")
        for (let i = 0; i < turns; i++) yield* Effect.promise(() => new Promise<void>(setImmediate))
        const next = join(root, `${n++}`)
        // A file that is renamed while it is copied: all are copied again.
        while (!copyAll(dir, next)) rmSync(next, { recursive: true })
        const { scope } = session
        yield* Scope.close(scope, Exit.void)
        rmSync(dir, { recursive: true })
        dir = next
        const last = logFiles(dir).at(-1)
        const tear = yield* below(4)
        if (last?.name === "audit.ndjson" && tear > 1 && last.text.length > 500) {
          truncateSync(join(dir, last.name), Buffer.byteLength(last.text) - tear * 20)
        }
        session = yield* start
      }),
      back: Effect.gen(function* () {
        const hours = yield* below(48)
        const time = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        yield* TestClock.setTime(time - hours * 3_600_000)
        record()
        // Sleeping fibers would sleep until the clock is where it was.
        yield* restart
        yield* renew
        yield* windows
      }),
      forward: Effect.gen(function* () {
        yield* TestClock.adjust("30 minutes")
        record()
        yield* windows
        yield* renew
        yield* windows
      })
    }
    const length = 3 + (yield* below(7))
    const taken: Array<Step> = []
    for (let i = 0; i < length; i++) {
      const step = steps[yield* below(steps.length)] ?? "pass"
      taken.push(step)
      happened.add(step)
      yield* act[step]
    }
    yield* Scope.close(session.scope, Exit.void)
    const report = AuditFile.verify(logFiles(dir), trustIn(authority, "/web"))
    const allowed = new Set(Array.from(happened, (step) => explained[step] ?? []).flat())
    const story = `history ${seed}: ${taken.join(", ")}: ${report.findings.map(({ description }) => description).join("; ")}`
    expect(report.verdict, story).not.toBe("Tampered")
    expect(report.isClosed, story).toBe(true)
    expect(
      report.findings.map(kindOf).filter((kind) => !allowed.has(kind)),
      story
    ).toEqual([])
    return report.verdict
  }).pipe(
    Effect.scoped,
    Effect.provide(Logger.minimumLogLevel(LogLevel.None)),
    // A clock of its own.
    Effect.provide(TestContext.TestContext)
  )

const half = Math.ceil(histories / 2)

it.effect(
  `${half} logs that were only rotated and restarted are verified`,
  () =>
    Effect.gen(function* () {
      for (let seed = 0; seed < half; seed++) expect(yield* live(firstSeed + seed, calm)).toBe("Verified")
    }),
  60_000 + histories * 2_000
)

it.effect(
  `${half} logs with accidents are never called tampered with, and what they lack is what the accident took`,
  () =>
    Effect.gen(function* () {
      for (let seed = 0; seed < half; seed++) yield* live(1_000_000 + firstSeed + seed, any)
    }),
  60_000 + histories * 2_000
)
