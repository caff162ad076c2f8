import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog } from "@agentweave/transport"
import { AuditFile, NodeAuditLog } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, LogLevel, Scope, TestClock } from "effect"
import { problemsOf } from "../auditReports.js"
import { folder, refused, requested } from "./auditEvents.js"

/** Opens the log, uses it, and closes it in order. */
const withLog = <A, E>(options: NodeAuditLog.Options, use: (log: AuditLog.AuditLog["Type"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/web" }))
    const scope = yield* Scope.make()
    const built = yield* Layer.build(Layer.provide(NodeAuditLog.layerFile(options), identity)).pipe(
      Scope.extend(scope),
      Effect.onError(() => Scope.close(scope, Exit.void))
    )
    return yield* Effect.ensuring(use(Context.get(built, AuditLog.AuditLog)), Scope.close(scope, Exit.void))
  })

const count = (text: string, tag: string) => text.split("\n").filter((line) => line.includes(`"_tag":"${tag}"`)).length

it.scoped("every event is in the file once, in order, and the file is intact", () =>
  Effect.gen(function* () {
    const path = join(yield* folder, "audit.ndjson")
    yield* withLog({ path, checkpointEvery: 10 }, (log) =>
      Effect.sync(() => {
        for (let n = 0; n < 25; n++) expect(log.unsafeRecord(refused(n))).toBeUndefined()
      })
    )
    const text = readFileSync(path, "utf8")
    expect(problemsOf(text)).toEqual([])
    const seen = text
      .trim()
      .split("\n")
      .flatMap((line) => JSON.parse(line).event?.maxConnections ?? [])
    expect(seen).toEqual(Array.from({ length: 25 }, (_, n) => n))
  })
)

it.scoped("a full file gives way to a new one, and all of them are one chain", () =>
  Effect.gen(function* () {
    const dir = yield* folder
    const path = join(dir, "audit.ndjson")
    const texts = () => readdirSync(dir).map((name) => read(join(dir, name)))
    let events = 0
    for (let session = 0; session < 3; session++) {
      yield* withLog({ path, maxFileSize: 2000 }, (log) =>
        Effect.forEach(
          Array.from({ length: 20 }, (_, n) => n),
          (n) =>
            Effect.zipRight(
              Effect.sync(() => log.unsafeRecord(refused(n))),
              until(() => count(texts().join(""), "PoolExhausted") > events)
            ).pipe(Effect.zipRight(Effect.sync(() => events++))),
          { discard: true }
        )
      )
    }
    const files = readdirSync(dir)
      .filter((name) => name !== "audit.ndjson")
      .sort((a, b) => Number(a.split(".").at(-1)) - Number(b.split(".").at(-1)))
    expect(files.length).toBeGreaterThan(3)
    const all = [...files, "audit.ndjson"].map((name) => readFileSync(join(dir, name), "utf8"))
    expect(problemsOf(all.join(""))).toEqual([])
    for (const text of all.slice(1)) expect(problemsOf(text)[0]).toBe("BeginsInTheMiddle")
    expect(count(all.join(""), "PoolExhausted")).toBe(60)
    expect(problemsOf(all.toSpliced(1, 1).join(""))).toEqual(["PredecessorMissing"])
  })
)

it.scoped("when no more can wait, requests are counted and the rest is refused", () =>
  Effect.gen(function* () {
    const path = join(yield* folder, "audit.ndjson")
    yield* withLog({ path, maxPending: 2 }, (log) =>
      Effect.sync(() => {
        log.unsafeRecord(refused(1))
        log.unsafeRecord(refused(2))
        expect(log.unsafeRecord(refused(3))).toMatchObject({ _tag: "AuditError", reason: "Full" })
        expect(log.unsafeRecord(requested)).toBeUndefined()
        expect(log.unsafeRecord(requested)).toBeUndefined()
      })
    )
    const text = readFileSync(path, "utf8")
    expect(text).toContain('"dropped":{"requests":2,"others":1}')
    expect(count(text, "PoolExhausted")).toBe(2)
    expect(count(text, "RequestStarted")).toBe(0)
  })
)

it.scoped("an event is in the file when the flush window has passed", () =>
  Effect.gen(function* () {
    const path = join(yield* folder, "audit.ndjson")
    yield* withLog({ path, flushWindow: "50 millis" }, (log) =>
      Effect.gen(function* () {
        log.unsafeRecord(refused(1))
        yield* TestClock.adjust("50 millis")
        // The write itself is the system's, and not on the test's clock.
        while (count(readFileSync(path, "utf8"), "PoolExhausted") === 0)
          yield* Effect.promise(() => new Promise(setImmediate))
      })
    )
  })
)

it.scoped("a file that is not intact is not continued", () =>
  Effect.gen(function* () {
    const path = join(yield* folder, "audit.ndjson")
    yield* withLog({ path }, (log) => Effect.sync(() => log.unsafeRecord(refused(1))))
    const text = readFileSync(path, "utf8")
    const { writeFileSync } = yield* Effect.promise(() => import("node:fs"))
    writeFileSync(path, text.replace('"maxConnections":1', '"maxConnections":2'))
    const error = yield* Effect.flip(withLog({ path }, () => Effect.void))
    expect(error).toMatchObject({ _tag: "AuditError", reason: "Failed" })
    expect(error.message).toContain("line 2")
  })
)

it.scoped("a file that cannot be opened is a typed error", () =>
  Effect.gen(function* () {
    const path = join(yield* folder, "missing", "audit.ndjson")
    const error = yield* Effect.flip(withLog({ path }, () => Effect.void))
    expect(error).toMatchObject({ _tag: "AuditError", reason: "Failed" })
  })
)

/** Lets the flush window pass until it is so: the writes are the system's, and not on the test's clock. */
const until = (isSo: () => boolean): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let turn = 0; turn < 2_000; turn++) {
      if (isSo()) return
      yield* TestClock.adjust("100 millis")
      yield* Effect.promise(() => new Promise(setImmediate))
    }
    return yield* Effect.dieMessage("expected it to be so by now")
  })

/** Not in two steps: the log renames files at the same time. */
const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

const quiet = Logger.minimumLogLevel(LogLevel.None)

const replace = (path: string) => {
  rmSync(path)
  writeFileSync(path, "another file")
}

for (const [what, harm] of [
  ["deleted", (path: string) => rmSync(path)],
  ["moved away", (path: string) => renameSync(path, `${path}.taken`)],
  ["replaced", replace],
  ["cut short", (path: string) => truncateSync(path, 40)]
] as const) {
  it.scoped(`a file that is ${what} while it is written is noticed, and the next one says what is lost`, () =>
    Effect.gen(function* () {
      const path = join(yield* folder, "audit.ndjson")
      yield* withLog({ path }, (log) =>
        Effect.gen(function* () {
          log.unsafeRecord(refused(1))
          log.unsafeRecord(refused(2))
          yield* until(() => count(read(path), "PoolExhausted") === 2)
          const first = read(path)
          harm(path)
          log.unsafeRecord(refused(3))
          yield* until(() => count(read(path), "PoolExhausted") === 1)
          // The new file goes on with the chain: put behind the old one it is whole again.
          expect(AuditFile.verify(first + read(path))).toMatchObject({ isClosed: false, lost: [] })
          expect(problemsOf(first + read(path))).not.toContain("Lost")
          log.unsafeRecord(refused(4))
        })
      )
      const found = AuditFile.verify(read(path))
      expect(found).toMatchObject({ isClosed: true, lost: [{ from: 0, to: 2 }] })
      expect(problemsOf(read(path))).toEqual(["BeginsInTheMiddle", "Lost"])
      expect(count(read(path), "PoolExhausted")).toBe(2)
      if (what === "replaced") expect(read(`${path}.replaced.2`)).toBe("another file")
      // A log that is made for it afterwards goes on.
      yield* withLog({ path }, () => Effect.void)
    }).pipe(Effect.provide(quiet))
  )
}

it.scoped("a full file that cannot be renamed is tried again, and nothing of the chain is missing", () =>
  Effect.gen(function* () {
    const dir = yield* folder
    const path = join(dir, "audit.ndjson")
    // The header, one event and a checkpoint: that is where the first file ends. Or later, by the events that are taken
    // until the failure is known.
    const obstacles = Array.from({ length: 200 }, (_, n) => `${path}.${n + 2}`)
    yield* withLog({ path, maxFileSize: 1 }, (log) =>
      Effect.gen(function* () {
        for (const obstacle of obstacles) mkdirSync(obstacle)
        expect(log.unsafeRecord(refused(1))).toBeUndefined()
        yield* until(() => count(read(path), "PoolExhausted") === 1)
        // Until the failure is known, events are taken.
        yield* until(() => log.unsafeRecord(refused(2)) !== undefined)
        for (const obstacle of obstacles) rmdirSync(obstacle)
        yield* until(() => log.unsafeRecord(refused(3)) === undefined)
        yield* until(() => readdirSync(dir).length >= 3)
      })
    )
    const files = readdirSync(dir)
      .filter((name) => name !== "audit.ndjson")
      .sort((a, b) => Number(a.split(".").at(-1)) - Number(b.split(".").at(-1)))
    const all = [...files, "audit.ndjson"].map((name) => read(join(dir, name))).join("")
    expect(problemsOf(all)).toEqual(["Dropped"])
    expect(count(all, "PoolExhausted")).toBeGreaterThanOrEqual(2)
  }).pipe(Effect.provide(quiet))
)
