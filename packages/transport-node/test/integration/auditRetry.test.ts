import { readFileSync } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"
import { IdentityProvider, type X509Context } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditFile, type NodeAuditLog } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, LogLevel, Option, Scope, Stream, TestClock } from "effect"
import type { OpenFile } from "../../src/internal/audit/files.js"
import { make } from "../../src/internal/audit/writer.js"
import { problemsOf } from "../auditReports.js"
import { folder, refused, requested } from "./auditEvents.js"

/** Waits, in turns of the event loop, for what the file system does. */
const until = (isDone: () => boolean) =>
  Effect.repeat(
    Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void))),
    { until: isDone }
  )

/** A log on a disk that can be full: then half of what is written gets there, and an error comes back. */
const setup = Effect.fnUntraced(function* (
  options: Omit<NodeAuditLog.Options, "path"> = {},
  identityOf: (
    context: X509Context.X509Context
  ) => Layer.Layer<IdentityProvider.IdentityProvider> = IdentityProvider.layerStatic
) {
  const path = join(yield* folder, "audit.ndjson")
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = identityOf(yield* authority.context({ path: "/web" }))
  const disk = { gate: Promise.resolve(), full: false, begun: 0, refused: 0, written: 0 }
  const openFile = async (name: string, flags: number, mode: number): Promise<OpenFile> => {
    const file = await open(name, flags, mode)
    return {
      appendFile: async (bytes) => {
        disk.begun++
        await disk.gate
        if (disk.full) {
          await file.appendFile(bytes.subarray(0, bytes.length / 2))
          disk.refused++
          throw new Error("ENOSPC: no space left on device")
        }
        await file.appendFile(bytes)
        disk.written++
      },
      truncate: (size) => file.truncate(size),
      datasync: () => file.datasync(),
      chmod: (mode) => file.chmod(mode),
      stat: (how) => file.stat(how),
      close: () => file.close()
    }
  }
  const scope = yield* Scope.make()
  const log = yield* make({ path, ...options }, openFile).pipe(Scope.extend(scope), Effect.provide(identity))
  const close = Effect.map(Scope.close(scope, Exit.void), () => {
    const text = readFileSync(path, "utf8")
    const records = text
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line))
    return {
      verified: AuditFile.verify(text),
      problems: problemsOf(text),
      times: records.filter((record) => record.event !== undefined).map((record) => record.event.time),
      dropped: records.filter((record) => record.dropped !== undefined).map((record) => record.dropped),
      kinds: records.map((record) => Object.keys(record).find((key) => !["seq", "prev", "time"].includes(key)))
    }
  })
  /** Lets windows pass until one more write was refused, or went well: what the disk does takes as long as it takes. */
  const flush = (what: "refused" | "written") =>
    Effect.suspend(() => {
      const before = disk[what]
      return Effect.repeat(TestClock.adjust("100 millis"), { until: () => disk[what] > before })
    })
  return { log, disk, flush, close }
})

it.scoped("what could not be written is written later: in its order, once, and the chain is whole", () =>
  Effect.gen(function* () {
    const { close, disk, flush, log } = yield* setup({ checkpointEvery: 2 })
    log.unsafeRecord(refused(1))
    yield* flush("written")
    disk.full = true
    for (const n of [2, 3]) expect(log.unsafeRecord(refused(n))).toBeUndefined()
    yield* flush("refused")
    // While the disk is full events that may be dropped are counted, and the others refused.
    yield* until(() => log.unsafeRecord(refused(-1))?.reason === "Failed")
    expect(log.unsafeRecord(requested)).toBeUndefined()
    yield* flush("refused")
    disk.full = false
    yield* flush("written")
    yield* until(() => log.unsafeRecord(refused(4)) === undefined)
    yield* flush("written")
    const { dropped, kinds, problems, times } = yield* close
    expect(problems).toEqual(["Dropped"])
    // Those before the failure was known are there too.
    expect(times.filter((time) => time > 0)).toEqual([1, 2, 3, 4])
    expect(kinds.filter((kind) => kind === "checkpoint").length).toBeGreaterThan(1)
    // Counted once, with the tries to find out whether the disk is full.
    expect(dropped.reduce((sum, { requests }) => sum + requests, 0)).toBe(1)
  }).pipe(Logger.withMinimumLogLevel(LogLevel.None))
)

it.scoped("what comes while a write is on its way waits behind it, also when that fails", () =>
  Effect.gen(function* () {
    const { close, disk, flush, log } = yield* setup()
    log.unsafeRecord(refused(1))
    let release = () => {}
    disk.gate = new Promise((resolve) => {
      release = resolve
    })
    yield* TestClock.adjust("100 millis")
    yield* until(() => disk.begun > 1)
    expect(log.unsafeRecord(refused(2))).toBeUndefined()
    disk.full = true
    disk.gate = Promise.resolve()
    release()
    yield* until(() => disk.refused > 0)
    disk.full = false
    yield* flush("written")
    const { problems, times } = yield* close
    expect(problems).toEqual([])
    expect(times).toEqual([1, 2])
  }).pipe(Logger.withMinimumLogLevel(LogLevel.None))
)

it.scoped("an identity that never comes holds up neither the events nor the end: they are not signed", () =>
  Effect.gen(function* () {
    const silent = Layer.succeed(IdentityProvider.IdentityProvider, {
      x509Context: Effect.never,
      changes: Stream.never
    })
    const { close, flush, log } = yield* setup({ checkpointEvery: 1 }, () => silent)
    log.unsafeRecord(refused(1))
    yield* flush("written")
    log.unsafeRecord(refused(2))
    yield* flush("written")
    const closing = yield* Effect.fork(close)
    yield* Effect.repeat(TestClock.adjust("1 second"), { until: () => Effect.map(Fiber.poll(closing), Option.isSome) })
    const { kinds, times, problems } = yield* Fiber.join(closing)
    expect([kinds, times]).toEqual([
      ["header", "event", "event", "end"],
      [1, 2]
    ])
    expect(problems).toEqual(["Unsigned"])
  })
)

it.scoped("a checkpoint comes after so many records as it is to sign, with the last of them", () =>
  Effect.gen(function* () {
    const { close, disk, flush, log } = yield* setup({ checkpointEvery: 3 })
    for (const n of [1, 2, 3, 4, 5, 6]) {
      log.unsafeRecord(refused(n))
      yield* flush("written")
    }
    const { written } = disk
    const { kinds, problems, verified } = yield* close
    expect([problems, verified.records]).toEqual([[], 11])
    const [one, three] = [
      ["event", "event"],
      ["event", "event", "event"]
    ]
    expect(kinds).toEqual(["header", ...one, "checkpoint", ...three, "checkpoint", "event", "end", "checkpoint"])
    // The header, and each event with what follows it.
    expect(written).toBe(7)
  })
)
