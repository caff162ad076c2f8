/** A log that is attacked while it is stopped, and then goes on: it signs nothing that it did not write itself. */
import { readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { AuditFile, type NodeAuditLog } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Forge from "../auditForge.js"
import { kindOf, trustIn } from "../auditReports.js"
import { refused } from "./auditEvents.js"
import { logFiles, until, world } from "./auditWorld.js"

/** A log of one closed session with so many events, and a way to run the next one. */
const stopped = (events: number) =>
  Effect.gen(function* () {
    const { authority, dir, open, path } = yield* world
    let recorded = 0
    const run = (events: number, limits: Partial<NodeAuditLog.Options> = {}) =>
      Effect.gen(function* () {
        const { close, log } = yield* open(limits)
        for (let n = 0; n < events; n++) {
          const number = recorded++
          log.unsafeRecord(refused(number))
          yield* until(() => logFiles(dir).some(({ text }) => text.includes(`"maxConnections":${number}}`)))
        }
        yield* close
      })
    yield* run(events)
    const trust = trustIn(authority, "/web")
    const verify = () => AuditFile.verify(logFiles(dir), trust)
    expect(verify().verdict).toBe("Verified")
    return { path, dir, run, trust, verify }
  })

const forgedEvent = (n: number) =>
  `"event":${JSON.stringify({ ...refused(n), targetId: "spiffe://example.org/forged" })}`

/** Writes the file anew, as those who hold no key can: without its checkpoints, and with other records at its end. */
const forge = (path: string, ...contents: ReadonlyArray<string>) => {
  const records = Forge.parse(readFileSync(path, "utf8"))
  const time = records[0]?.time ?? 0
  const forged = contents.map((content) => ({ time, content }))
  writeFileSync(path, Forge.chain([...records.slice(0, 1), ...forged]))
}

for (const [how, ...end] of [["ends like one that was closed", '"end":{"state":"Closed"}'], ["is open"]] as const) {
  it.scoped(`records that are put into the file of a stopped log stay unsigned when it goes on: one that ${how}`, () =>
    Effect.gen(function* () {
      const { path, run, verify } = yield* stopped(3)
      forge(path, forgedEvent(7), ...end)
      yield* run(2)
      const report = verify()
      expect(report.findings[0]).toMatchObject({ _tag: "Unsigned", from: 0, to: 1 + end.length })
      expect(report.verdict).toBe("Unsigned")
    })
  )
}

it.scoped("files that are put behind the last one of a stopped log stay unsigned when it goes on", () =>
  Effect.gen(function* () {
    const { dir, path, run, verify } = yield* stopped(3)
    const [{ text } = { text: "" }] = logFiles(dir)
    const records = Forge.parse(text)
    const first = records[0]?.content ?? ""
    const time = records[0]?.time ?? 0
    const end = { time, content: '"end":{"state":"Rotated"}' }
    const before = Forge.chain([...records.slice(0, 1), end])
    const prev = Forge.chain([...records.slice(0, 1), end, { time, content: forgedEvent(1) }])
    const hash = /"prev":"(\w+)"/.exec(prev.split("\n")[2] ?? "")?.[1] ?? ""
    const header = first
      .replace('"file":0', '"file":1')
      .replace(
        '"begins":"New"',
        `"begins":"Rotated","predecessor":{"file":0,"seq":1,"hash":"${hash}","state":"Rotated"}`
      )
    const behind = [header, forgedEvent(1), '"end":{"state":"Closed"}'].map((content) => ({ time, content }))
    writeFileSync(`${path}.1`, before)
    writeFileSync(path, Forge.chain(behind, undefined, { seq: 2, hash }))
    expect(verify().findings.map(kindOf)).toEqual(["Unsigned"])
    yield* run(2)
    expect(verify().findings).toMatchObject([{ _tag: "Unsigned", from: 0, to: 4 }])
  })
)

it.scoped("a forged record that files were removed because of limits does not excuse that they are gone", () =>
  Effect.gen(function* () {
    const { dir, path, run, verify } = yield* stopped(3)
    yield* run(3)
    const [first, second] = logFiles(dir)
    const records = Forge.parse(second?.text ?? "")
    const time = records[0]?.time ?? 0
    const place = { seq: 6, hash: /"prev":"(\w+)"/.exec(second?.text ?? "")?.[1] ?? "" }
    const retired = { time, content: `"retired":{"files":1,"upTo":5,"hash":"${place.hash}"}` }
    writeFileSync(path, Forge.chain([...records.slice(0, 1), retired], undefined, place))
    rmSync(`${dir}/${first?.name}`)
    yield* run(3)
    expect(verify().findings.map(kindOf)).toEqual(["Unsigned", "TailOpen", "BeginsInTheMiddle"])
  })
)

for (const [how, harm] of [
  ["deleted", (path: string) => rmSync(path)],
  ["emptied", (path: string) => truncateSync(path)]
] as const) {
  it.scoped(
    `a live file that is ${how} while the log is stopped is missing, whether or not the one before was full`,
    () =>
      Effect.gen(function* () {
        const { dir, path, run, verify } = yield* stopped(3)
        yield* run(3)
        harm(path)
        yield* run(1)
        expect(verify().findings).toMatchObject([{ _tag: "Incomplete", what: "PredecessorMissing" }])
        expect(logFiles(dir).at(-1)?.text).toContain('"begins":"PredecessorMissing"')
      })
  )
}

it.scoped("a state of the files that is put back shows in nothing but its last date, and with an anchor", () =>
  Effect.gen(function* () {
    const { path, run, verify } = yield* stopped(3)
    const { until: before } = verify()
    yield* run(3)
    renameSync(`${path}.5`, path)
    yield* run(1)
    expect(verify()).toMatchObject({ verdict: "Verified", records: 10 })
    expect(before).toBeGreaterThan(0)
  })
)

/** The ways to change a byte of a file. */
const changes: ReadonlyArray<readonly [how: string, change: (bytes: Buffer, at: number) => Buffer]> = [
  ["changed in one bit", (bytes, at) => Buffer.from(bytes).fill((bytes[at] ?? 0) ^ 1, at, at + 1)],
  ["changed in its case", (bytes, at) => Buffer.from(bytes).fill((bytes[at] ?? 0) ^ 0x20, at, at + 1)],
  ["removed", (bytes, at) => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)])],
  ["followed by a space", (bytes, at) => Buffer.concat([bytes.subarray(0, at), Buffer.from(" "), bytes.subarray(at)])]
]

it.scoped("no byte of a file can be changed, removed or added without that it shows", () =>
  Effect.gen(function* () {
    const { dir, run, trust } = yield* stopped(3)
    yield* run(2)
    const files = logFiles(dir).map(({ name, text }) => ({ name, text: Buffer.from(text) }))
    const [first = expect.fail("no file"), last = expect.fail("no second file")] = files
    const isUnseen = (file: number, at: number, change: (bytes: Buffer, at: number) => Buffer): boolean => {
      const changed = files.map(({ name, text }, n) => ({ name, text: n === file ? change(text, at) : text }))
      return AuditFile.verify(changed, trust).verdict === "Verified"
    }
    for (const [how, change] of changes) {
      for (const [n, { text }] of [first, last].entries()) {
        // Every one of the last signature, and a sample of the others.
        const places = Array.from(text.keys()).filter((at) => at % 13 === 0 || text.length - at < 120)
        expect(
          places.filter((at) => isUnseen(n, at, change)),
          how
        ).toEqual([])
      }
    }
  })
)

it.scoped("where a process was killed while it removed files because of limits, none is missing", () =>
  Effect.gen(function* () {
    const { dir, run, trust, verify } = yield* stopped(3)
    yield* run(6, { maxFileSize: 1 })
    const before = logFiles(dir)
    yield* run(1, { maxFileSize: 1, maxTotalSize: 2_000 })
    const after = logFiles(dir)
    const removed = before.filter(({ text }) => !after.some((file) => file.text === text))
    expect(removed.length).toBeGreaterThan(2)
    expect(verify().verdict).toBe("Verified")
    for (let from = 0; from < removed.length; from++) {
      expect(AuditFile.verify([...removed.slice(from), ...after], trust)).toMatchObject({ verdict: "Verified" })
    }
    expect(AuditFile.verify(after.slice(1), trust).verdict).toBe("Incomplete")
  })
)
