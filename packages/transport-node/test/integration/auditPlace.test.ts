/** Where an audit log writes, and where it does not: what is not its own stays as it is. */
import { execFileSync, spawn } from "node:child_process"
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync
} from "node:fs"
import { hostname } from "node:os"
import { join } from "node:path"
import { AuditFile } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import { Effect, Logger, LogLevel, TestClock } from "effect"
import * as Format1 from "../auditFormat1.js"
import { problemsOf, trustIn } from "../auditReports.js"
import { refused } from "./auditEvents.js"
import { logFiles, until, world } from "./auditWorld.js"
import { realTime } from "./fixture.js"

const quiet = Logger.minimumLogLevel(LogLevel.None)

const notOurs = ["a line that is no record\n", "no newline", '{"seq":0,"prev":"', '{"seq":0}\n', '{"seq":7,"pr', "\n"]

for (const text of notOurs) {
  it.scoped(`a file that holds ${JSON.stringify(text)} is refused and left as it is`, () =>
    Effect.gen(function* () {
      const { dir, path, session } = yield* world
      writeFileSync(path, text, { mode: 0o644 })
      // The beginning of the very record that the log would write was left by a crash.
      if (text === '{"seq":0,"prev":"') return yield* session
      const error = yield* Effect.flip(session)
      expect(error).toMatchObject({ _tag: "AuditError", reason: "Failed" })
      expect(readFileSync(path, "utf8")).toBe(text)
      expect(readdirSync(dir)).toEqual(["audit.ndjson"])
    })
  )
}

it.scoped("a link in the place of the file is not followed, wherever it leads", () =>
  Effect.gen(function* () {
    const { dir, path, session } = yield* world
    writeFileSync(join(dir, "precious"), "precious")
    for (const target of ["precious", "nothing"]) {
      symlinkSync(join(dir, target), path)
      const error = yield* Effect.flip(session)
      expect(error.message).toContain("a symbolic link")
      expect([readFileSync(join(dir, "precious"), "utf8"), existsSync(join(dir, "nothing"))]).toEqual([
        "precious",
        false
      ])
      yield* Effect.sync(() => execFileSync("rm", [path]))
    }
  })
)

it.scoped("a named pipe and a directory in the place of the file are refused at once", () =>
  Effect.gen(function* () {
    const { path, session } = yield* world
    execFileSync("mkfifo", [path])
    expect((yield* Effect.flip(session)).message).toContain("a named pipe")
    execFileSync("rm", [path])
    mkdirSync(path)
    expect((yield* Effect.flip(session)).message).toContain("a directory")
  })
)

it.scoped(
  "a named pipe that takes the place of the file while it is written is refused, and the log goes on without it",
  () =>
    Effect.gen(function* () {
      const { open, path } = yield* world
      const { close, log } = yield* open()
      log.unsafeRecord(refused(1))
      yield* until(() => readFileSync(path, "utf8").includes("PoolExhausted"))
      execFileSync("rm", [path])
      execFileSync("mkfifo", [path])
      // Until the failure is known, events are taken.
      yield* until(() => log.unsafeRecord(refused(2)) !== undefined)
      execFileSync("rm", [path])
      yield* until(() => log.unsafeRecord(refused(3)) === undefined)
      yield* close
      expect(readFileSync(path, "utf8")).toContain('"maxConnections":3')
    }).pipe(Effect.provide(quiet))
)

it.scoped("the file is readable by its owner alone, whatever the umask, and whatever it was before", () =>
  Effect.gen(function* () {
    const { path, session } = yield* world
    const modeOf = () => statSync(path).mode & 0o777
    const before = process.umask(0o277)
    yield* Effect.ensuring(
      session,
      Effect.sync(() => process.umask(before))
    )
    expect(modeOf()).toBe(0o600)
    execFileSync("rm", [path])
    writeFileSync(path, "")
    chmodSync(path, 0o666)
    yield* session
    expect(modeOf()).toBe(0o600)
  })
)

it.scoped("a second writer of a path is refused, and the first one goes on", () =>
  Effect.gen(function* () {
    const { authority, open, path } = yield* world
    const first = yield* open()
    const error = yield* Effect.flip(open())
    expect(error).toMatchObject({ _tag: "AuditError", reason: "Failed" })
    expect(error.message).toContain(`process ${process.pid}`)
    first.log.unsafeRecord(refused(1))
    yield* first.close
    expect(AuditFile.verify(readFileSync(path, "utf8"), trustIn(authority, "/web")).verdict).toBe("Verified")
    // Then it is free.
    yield* Effect.flatMap(open(), ({ close }) => close)
    expect(existsSync(`${path}.lock`)).toBe(false)
  })
)

it.scoped(
  "a lock of a process that is gone is taken over; one of a living process or a fresh one of another host is not",
  () =>
    Effect.gen(function* () {
      const { path, session } = yield* world
      const holder = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60_000)"])
      const { pid = 0 } = holder
      const lock = (host: string) =>
        writeFileSync(`${path}.lock`, JSON.stringify({ pid, host, started: "", token: "t" }))
      lock(hostname())
      expect((yield* Effect.flip(session)).message).toContain(`process ${pid}`)
      // A living process that does not renew it, and is not known to have made it, is another one with its number.
      yield* TestClock.adjust("2 minutes")
      yield* session
      yield* realTime
      lock(hostname())
      expect((yield* Effect.flip(session)).message).toContain(`process ${pid}`)
      yield* Effect.async<void>((resume) => {
        holder.once("exit", () => resume(Effect.void))
        holder.kill("SIGKILL")
      })
      yield* session
      expect(existsSync(`${path}.lock`)).toBe(false)

      lock("another.host")
      const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
      utimesSync(`${path}.lock`, now / 1000, now / 1000)
      expect((yield* Effect.flip(session)).message).toContain("another.host")
      yield* TestClock.adjust("2 minutes")
      yield* session
    })
)

it.scoped("a log whose lock was taken by another process fails closed", () =>
  Effect.gen(function* () {
    const { open, path } = yield* world
    const { close, log } = yield* open()
    writeFileSync(`${path}.lock`, JSON.stringify({ pid: 1, host: "another.host", started: "", token: "another" }))
    yield* TestClock.adjust("2 seconds")
    yield* until(() => log.unsafeRecord(refused(1)) !== undefined)
    expect(log.unsafeRecord(refused(1))?.message).toContain("lock")
    yield* close
    // Nor does it remove the lock of the other.
    expect(existsSync(`${path}.lock`)).toBe(true)
  }).pipe(Effect.provide(quiet))
)

for (const [what, put] of [
  ["a link", (path: string) => symlinkSync("/dev/null", path)],
  ["a directory", (path: string) => mkdirSync(path)],
  ["another file", (path: string) => writeFileSync(path, "another")]
] as const) {
  it.scoped(`${what} that takes the place of the file while it is written is put aside, and not written to`, () =>
    Effect.gen(function* () {
      const { dir, open, path } = yield* world
      const { close, log } = yield* open()
      log.unsafeRecord(refused(1))
      yield* until(() => readFileSync(path, "utf8").includes("PoolExhausted"))
      execFileSync("rm", [path])
      put(path)
      log.unsafeRecord(refused(2))
      yield* until(() => readdirSync(dir).some((name) => name.includes(".replaced.")))
      yield* close
      expect(problemsOf(readFileSync(path, "utf8"))).toEqual(["BeginsInTheMiddle", "Lost"])
      if (what === "another file") expect(readFileSync(`${path}.replaced.1`, "utf8")).toBe("another")
    }).pipe(Effect.provide(quiet))
  )
}

for (const [what, limit] of [
  ["too much", { maxTotalSize: 12_000 }],
  ["too old", { maxAge: "1 hour" }]
] as const) {
  it.scoped(`the oldest files are removed when they are ${what}, on record, and what is left is verified`, () =>
    Effect.gen(function* () {
      const { authority, dir, open } = yield* world
      writeFileSync(join(dir, "audit.ndjson.notes"), "not a file of the log")
      const { close, log } = yield* open({ maxFileSize: 4_000, ...limit })
      let last = -1
      for (let n = 0; n < 200 && logFiles(dir)[0]?.text.startsWith('{"seq":0,') !== false; n++) {
        log.unsafeRecord(refused((last = n)))
        const before = logFiles(dir)
          .map(({ text }) => text)
          .join("").length
        yield* until(
          () =>
            logFiles(dir)
              .map(({ text }) => text)
              .join("").length !== before
        )
        if (what === "too old") yield* TestClock.adjust("10 minutes")
      }
      yield* close
      const files = logFiles(dir)
      expect(files[0]?.text.startsWith('{"seq":0,')).toBe(false)
      expect(files.map(({ text }) => text).join("")).toContain('"retired":{"files":')
      expect(files.map(({ text }) => text).join("")).toContain(`"maxConnections":${last}`)
      expect(AuditFile.verify(files, trustIn(authority, "/web"))).toMatchObject({ verdict: "Verified", findings: [] })
      // One more that is missing is not on record.
      expect(AuditFile.verify(files.slice(1), trustIn(authority, "/web")).verdict).not.toBe("Verified")
      expect(existsSync(join(dir, "audit.ndjson.notes"))).toBe(true)
    })
  )
}

it.scoped("options that make no sense name their field", () =>
  Effect.gen(function* () {
    const { open } = yield* world
    for (const [field, options] of Object.entries({
      checkpointEvery: { checkpointEvery: Number.NaN },
      maxPending: { maxPending: -1 },
      maxFileSize: { maxFileSize: 0.5 },
      flushWindow: { flushWindow: "-5 seconds" as const },
      path: { path: "" }
    })) {
      expect(yield* Effect.flip(open(options))).toMatchObject({ _tag: "InvalidConfigError", field })
    }
  })
)

it.scoped("a file that a killed process left with two names, in the middle of being renamed, is gone on from", () =>
  Effect.gen(function* () {
    const { authority, dir, path, session } = yield* world
    yield* session
    linkSync(path, `${path}.2`)
    yield* session
    expect(readdirSync(dir).toSorted()).toEqual(["audit.ndjson", "audit.ndjson.2"])
    expect(AuditFile.verify(logFiles(dir), trustIn(authority, "/web")).verdict).toBe("Verified")
    // A name that another file has is not taken from it.
    writeFileSync(`${path}.5`, "another")
    expect(yield* Effect.flip(session)).toMatchObject({ _tag: "AuditError" })
    expect(readFileSync(`${path}.5`, "utf8")).toBe("another")
  })
)

it.scoped("a log of format 1 is continued in format 2, and verified with it", () =>
  Effect.gen(function* () {
    const { authority, dir, path, session } = yield* world
    const svid = yield* authority.issue({ path: "/web" })
    const time = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
    let { line, head } = Format1.append(Format1.start, { header: { version: 1, time, flushWindowMillis: 100 } })
    let text = `${line}\n`
    for (const content of [() => ({ event: refused(time) }), () => Format1.checkpoint(head, svid, true)]) {
      ;({ line, head } = Format1.append(head, content()))
      text += `${line}\n`
    }
    writeFileSync(path, text)
    yield* session
    const files = logFiles(dir)
    expect(files.map(({ name }) => name)).toEqual(["audit.ndjson.2", "audit.ndjson"])
    expect(files[1]?.text).toContain('{"seq":3,')
    expect(AuditFile.verify(files, trustIn(authority, "/web"))).toMatchObject({ verdict: "Verified", findings: [] })
    expect(AuditFile.verify([{ name: "changed", text: text.replace("Total", "Other") }]).verdict).toBe("Tampered")
  })
)
