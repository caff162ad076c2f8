/**
 * Ways to change, cut, replay, reorder, forge, sign anew or launder an audit file, each with its verdict. The files are
 * honest ones, written by the log itself.
 */
import { readdirSync, readFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { IdentityProvider, type X509Svid } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog } from "@agentweave/transport"
import { type AuditAnchor, AuditFile, NodeAuditLog } from "@agentweave/transport-node"
import { expect } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Scope, TestClock } from "effect"
import * as Forge from "../auditForge.js"
import { kindOf, type TextFile, trustIn } from "../auditReports.js"
import { folder, refused } from "./auditEvents.js"
import { sharing } from "./fixture.js"

/** The files and SVIDs that an attacker has to work with. */
interface Stolen {
  /** The files of the log, oldest first; the last one is closed. */
  readonly files: ReadonlyArray<TextFile>
  /** Another honest log of the same workload. */
  readonly other: TextFile
  /**
   * The SVID that signed, one of the right ID by another authority, one of another workload, and one that was issued after
   * the fact.
   */
  readonly svids: { readonly [name in "own" | "foreign" | "colleague" | "later"]: X509Svid.X509Svid }
}

const day = 24 * 60 * 60 * 1000

const filesAt = (path: string): ReadonlyArray<TextFile> =>
  readdirSync(dirname(path))
    .filter((name) => name.startsWith(basename(path)) && !name.endsWith(".lock"))
    .map((name) => ({ name, text: readFileSync(join(dirname(path), name), "utf8") }))
    .toSorted((a, b) => seqOf(a.text) - seqOf(b.text))

/** Lets flush windows pass until so many events are in the files. */
const written = (path: string, events: number) =>
  Effect.repeat(
    Effect.zipRight(
      TestClock.adjust("100 millis"),
      Effect.promise(() => new Promise<void>(setImmediate))
    ),
    { until: () => filesAt(path).flatMap(({ text }) => text.match(/"event":/g) ?? []).length >= events }
  )

/** An honest log of so many sessions with eight events each, of which each wrote two checkpoints. */
const writeLog = (path: string, sessions: number, identity: Layer.Layer<IdentityProvider.IdentityProvider>) =>
  Effect.gen(function* () {
    for (let session = 0; session < sessions; session++) {
      const scope = yield* Scope.make()
      const built = yield* Layer.build(
        Layer.provide(NodeAuditLog.layerFile({ path, checkpointEvery: 5 }), identity)
      ).pipe(Scope.extend(scope))
      for (let n = 0; n < 8; n++) {
        Context.get(built, AuditLog.AuditLog).unsafeRecord(refused(n))
        if (n === 4) yield* written(path, session * 8 + 5)
      }
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 second")
    }
    return filesAt(path)
  })

/** Files of a world that is a day old; what is stolen of it is stolen a day later. */
class World extends Context.Tag("World")<World, { readonly stolen: Stolen; readonly trust: AuditFile.Trust }>() {}

const WorldLive = Layer.scoped(
  World,
  Effect.gen(function* () {
    const dir = yield* folder
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const foreign = yield* DevAuthority.make({ trustDomain: "example.org" })
    yield* TestClock.adjust("1 day")
    const context = yield* authority.context({ path: "/web" })
    const identity = IdentityProvider.layerStatic(context)
    const files = yield* writeLog(join(dir, "audit.ndjson"), 3, identity)
    const [other = { name: "", text: "" }] = yield* writeLog(join(dir, "other.ndjson"), 1, identity)
    yield* TestClock.adjust("1 day")
    const svids = {
      own: context.svid,
      foreign: yield* foreign.issue({ path: "/web", validity: { notBefore: 0, notAfter: 10 * day } }),
      colleague: yield* authority.issue({ path: "/api", validity: { notBefore: 0, notAfter: 10 * day } }),
      later: yield* authority.issue({ path: "/web" })
    }
    return { stolen: { files, other, svids }, trust: trustIn(authority, "/web") }
  })
)

const seqOf = (text: string): number => Number(/^\{"seq":(\d+)/.exec(text)?.[1])

const linesOf = (text: string): ReadonlyArray<string> => text.split("\n").slice(0, -1)
const textOf = (lines: ReadonlyArray<string>): string => lines.map((line) => `${line}\n`).join("")

/** Another text for one of the files. */
const edit = (files: ReadonlyArray<TextFile>, at: number, change: (lines: ReadonlyArray<string>) => string) =>
  files.map((file, n) => (n === at ? { ...file, text: change(linesOf(file.text)) } : file))

const editLine = (files: ReadonlyArray<TextFile>, at: number, line: number, change: (line: string) => string) =>
  edit(files, at, (lines) => textOf(lines.with(line, change(lines.at(line) ?? ""))))

/** The whole log as one file that is chained anew. */
const anew = (
  { files }: Stolen,
  change: (records: ReadonlyArray<Forged>) => ReadonlyArray<Forged>,
  svid?: X509Svid.X509Svid
) => [{ name: "audit.ndjson", text: Forge.chain(change(Forge.parse(files[0]?.text ?? "")), svid) }]

type Forged = Forge.Forged

const withChange = (records: ReadonlyArray<Forged>) =>
  records.map((record) => ({ ...record, content: record.content.replace('"maxConnections":3', '"maxConnections":4') }))

const withoutCheckpoints = (records: ReadonlyArray<Forged>) =>
  records.filter(({ content }) => !content.startsWith('"checkpoint"'))

type Attack = readonly [
  how: string,
  verdict: AuditFile.Verdict,
  kind: string,
  attack: (stolen: Stolen) => ReadonlyArray<TextFile>
]

const table: Record<string, ReadonlyArray<Attack>> = {
  "in front": [
    ["its header is removed", "Tampered", "Missing", ({ files }) => edit(files, 0, (lines) => textOf(lines.slice(1)))],
    [
      "its first records are removed",
      "Tampered",
      "Missing",
      ({ files }) => edit(files, 0, (lines) => textOf(lines.slice(4)))
    ],
    ["its first file is removed", "Incomplete", "BeginsInTheMiddle", ({ files }) => files.slice(1)],
    [
      "its first file is removed and the next one made to look like the first",
      "Tampered",
      "Changed",
      ({ files }) =>
        editLine(files.slice(1), 0, 0, (line) =>
          line.replace(/"seq":\d+,"prev":"\w+"/, `"seq":0,"prev":"${"0".repeat(64)}"`)
        ).map((file, n) => (n === 0 ? { ...file, text: renumbered(file.text) } : file))
    ]
  ],
  "in the middle": [
    [
      "an event is changed",
      "Tampered",
      "Changed",
      ({ files }) => editLine(files, 1, 2, (line) => line.replace("Total", "Other"))
    ],
    [
      "a space is added to an event",
      "Tampered",
      "Changed",
      ({ files }) => editLine(files, 1, 2, (line) => line.replace("{", "{ "))
    ],
    [
      "a header is changed",
      "Tampered",
      "Changed",
      ({ files }) => editLine(files, 1, 0, (line) => line.replace("Closed", "Rotated"))
    ],
    [
      "a date is changed",
      "Tampered",
      "Changed",
      ({ files }) => editLine(files, 1, 1, (line) => line.replace(/"time":\d+/, `"time":${day + 5000}`))
    ],
    [
      "a record is removed",
      "Tampered",
      "Missing",
      ({ files }) => edit(files, 1, (lines) => textOf(lines.toSpliced(3, 1)))
    ],
    [
      "a row is removed",
      "Tampered",
      "Missing",
      ({ files }) => edit(files, 1, (lines) => textOf(lines.toSpliced(1, 6)))
    ],
    [
      "a record is put in twice",
      "Tampered",
      "OutOfPlace",
      ({ files }) => edit(files, 1, (lines) => textOf(lines.toSpliced(3, 0, lines[3] ?? "")))
    ],
    [
      "two records are swapped",
      "Tampered",
      "Missing",
      ({ files }) => edit(files, 1, (lines) => textOf(lines.with(2, lines[3] ?? "").with(3, lines[2] ?? "")))
    ],
    ["two events are swapped, their numbers are not", "Tampered", "Changed", ({ files }) => edit(files, 1, swapEvents)],
    [
      "two rows are made one",
      "Tampered",
      "Changed",
      ({ files }) => editLine(files, 1, 1, (line) => line.replace(/"prev":"\w+","time":\d+,/, ""))
    ],
    [
      "a line is made unreadable",
      "Tampered",
      "Unreadable",
      ({ files }) => editLine(files, 1, 2, (line) => line.slice(0, -1))
    ],
    [
      "an empty line is put in",
      "Tampered",
      "Unreadable",
      ({ files }) => edit(files, 1, (lines) => textOf(lines.toSpliced(3, 0, "")))
    ],
    [
      "a second content is put into a record",
      "Tampered",
      "Unreadable",
      ({ files }) => editLine(files, 1, 2, (line) => line.replace(/\}$/, ',"end":{"state":"Closed"}}'))
    ],
    ["a file is removed", "Incomplete", "PredecessorMissing", ({ files }) => files.toSpliced(1, 1)],
    [
      "the end of a file is cut off",
      "Tampered",
      "Missing",
      ({ files }) => edit(files, 1, (lines) => textOf(lines.slice(0, -2)))
    ],
    ["a file is cut at a checkpoint", "Tampered", "Missing", ({ files }) => edit(files, 1, untilCheckpoint)],
    [
      "a file is replaced by one of another log",
      "Incomplete",
      "BeginsAnew",
      ({ files, other }) => [...files.slice(0, 1), other, ...files.slice(2)]
    ],
    ["its files are given another order", "Tampered", "OutOfPlace", ({ files }) => files.toReversed()]
  ],
  "at a checkpoint": [
    [
      "its signature is changed",
      "Tampered",
      "BadSignature",
      ({ files }) => editLine(files, 2, -1, (line) => line.replace(/"signature":"..../, '"signature":"AAAA'))
    ],
    [
      "its signer's name is changed",
      "Tampered",
      "BadSignature",
      ({ files }) => editLine(files, 2, -1, (line) => line.replace("example.org/web", "example.org/api"))
    ],
    [
      "something is put behind its signature",
      "Tampered",
      "BadSignature",
      ({ files }) => editLine(files, 2, -1, (line) => line.replace(/\}\}$/, ',"dropped":{"requests":0,"others":0}}}'))
    ],
    [
      "it is one of another log",
      "Tampered",
      "BadSignature",
      ({ files, other }) =>
        edit(files, 2, (lines) =>
          textOf([...lines.slice(0, -1), movedCheckpoint(lines.at(-1) ?? "", linesOf(other.text).at(-1) ?? "")])
        )
    ],
    [
      "it is an earlier one",
      "Tampered",
      "OutOfPlace",
      ({ files }) => edit(files, 2, (lines) => textOf([...lines.slice(0, -1), lines.find(isCheckpoint) ?? ""]))
    ]
  ],
  "at its end": [
    [
      "the last checkpoint is removed",
      "Unsigned",
      "Unsigned",
      ({ files }) => edit(files, 2, (lines) => textOf(lines.slice(0, -1)))
    ],
    [
      "the end is removed",
      "Unsigned",
      "Unsigned",
      ({ files }) => edit(files, 2, (lines) => textOf(lines.slice(0, -2)))
    ],
    ["it is cut at a checkpoint", "Incomplete", "TailOpen", ({ files }) => edit(files, 2, untilCheckpoint)],
    [
      "its last record is torn",
      "Unsigned",
      "Unsigned",
      ({ files }) => edit(files, 2, (lines) => textOf(lines).slice(0, -9))
    ],
    [
      "its last file is removed, and the one before cut at a checkpoint",
      "Incomplete",
      "TailOpen",
      ({ files }) => edit(files, 1, untilCheckpoint).slice(0, 2)
    ],
    [
      "records are put behind it",
      "Tampered",
      "OutOfPlace",
      ({ files }) => edit(files, 2, (lines) => textOf([...lines, appendedTo(lines)]))
    ],
    [
      "a text without a newline is put behind it",
      "Incomplete",
      "TailOpen",
      ({ files }) => edit(files, 2, (lines) => `${textOf(lines)}{"seq":`)
    ]
  ],
  "as a whole": [
    ["it is chained anew, with its old signatures", "Tampered", "BadSignature", (stolen) => anew(stolen, withChange)],
    [
      "it is chained anew, without signatures",
      "Unsigned",
      "Unsigned",
      (stolen) => anew(stolen, (records) => withoutCheckpoints(withChange(records)))
    ],
    [
      "it is signed by the right ID of another authority",
      "SignerUnknown",
      "SignerUnknown",
      (stolen) => anew(stolen, withChange, stolen.svids.foreign)
    ],
    [
      "it is signed by another workload of the domain",
      "SignerUnknown",
      "SignerUnknown",
      (stolen) => anew(stolen, withChange, stolen.svids.colleague)
    ],
    [
      "its dates go back, signed with the stolen key of the time",
      "Tampered",
      "OutOfPlace",
      (stolen) =>
        anew(
          stolen,
          (records) =>
            records.map((record, n) => (n === 2 || record.time === undefined ? record : { ...record, time: day - n })),
          stolen.svids.own
        )
    ],
    [
      "it is signed by an SVID that was issued later",
      "Unsigned",
      "Unsigned",
      (stolen) => anew(stolen, withChange, stolen.svids.later)
    ],
    [
      "it is signed later, with a record of today at its end",
      "Unsigned",
      "Unsigned",
      (stolen) => anew(stolen, (records) => redated(withChange(records)), stolen.svids.later)
    ],
    ["it is emptied", "Tampered", "Unreadable", ({ files }) => [{ name: files[0]?.name ?? "", text: "" }]],
    [
      "it is passed off as format 1",
      "Tampered",
      "Unreadable",
      (stolen) =>
        anew(stolen, (records) =>
          records.with(0, { time: day, content: `"header":{"version":1,"time":${day},"flushWindowMillis":100}` })
        )
    ]
  ]
}

const isCheckpoint = (line: string): boolean => line.includes('"checkpoint":')

const untilCheckpoint = (lines: ReadonlyArray<string>): string =>
  textOf(lines.slice(0, lines.findIndex(isCheckpoint) + 1))

/** A file whose numbers begin with 0; its hashes are as they were. */
const renumbered = (text: string): string => {
  let seq = 0
  return text.replace(/^\{"seq":\d+/gm, () => `{"seq":${seq++}`)
}

const swapEvents = (lines: ReadonlyArray<string>): string => {
  const [from = "", to = ""] = [lines[2], lines[3]]
  const eventOf = (line: string) => line.slice(line.indexOf('"event"'))
  return textOf(lines.with(2, from.replace(eventOf(from), eventOf(to))).with(3, to.replace(eventOf(to), eventOf(from))))
}

const movedCheckpoint = (place: string, checkpoint: string): string =>
  place.slice(0, place.indexOf('"checkpoint"')) + checkpoint.slice(checkpoint.indexOf('"checkpoint"'))

/** A record that follows the last one of a file, in its row. */
const appendedTo = (lines: ReadonlyArray<string>): string =>
  `{"seq":${seqOf(lines.at(-1) ?? "") + 1},"event":{"_tag":"LeaseLeaked","time":0}}`

/** The end of a log, and with it its last signature, dated two days later than it was. */
const redated = (records: ReadonlyArray<Forged>): ReadonlyArray<Forged> =>
  records.map((record, n) =>
    n < records.length - 2 || record.time === undefined ? record : { ...record, time: record.time + day + 1000 }
  )

const placeOf = (text: string) => ({ seq: seqOf(text), hash: /"prev":"(\w+)"/.exec(text)?.[1] ?? "" })

const it = sharing(WorldLive)

it.scoped("the honest log is verified, and the words of the format alone chain it to the same bytes", () =>
  Effect.gen(function* () {
    const { stolen, trust } = yield* World
    expect(AuditFile.verify(stolen.files, trust)).toMatchObject({ verdict: "Verified", findings: [], isClosed: true })
    expect(AuditFile.verify([stolen.other], trust).verdict).toBe("Verified")
    expect(stolen.files.map(({ text }) => Forge.chain(Forge.parse(text), undefined, placeOf(text)))).toEqual(
      stolen.files.map(({ text }) => text)
    )
  })
)

for (const [where, attacks] of Object.entries(table)) {
  for (const [how, verdict, kind, attack] of attacks) {
    it.scoped(`a log that was attacked ${where} is ${verdict} when ${how}`, () =>
      Effect.gen(function* () {
        const { stolen, trust } = yield* World
        const files = attack(stolen)
        expect(files).not.toEqual(stolen.files)
        const report = AuditFile.verify(files, trust)
        expect([report.verdict, kindOf(report.findings[0] ?? expect.fail("no finding"))]).toEqual([verdict, kind])
      })
    )
  }
}

it.scoped("a log whose last session was removed as a whole is verified up to there, and an anchor shows the rest", () =>
  Effect.gen(function* () {
    const { stolen, trust } = yield* World
    const kept = stolen.files.slice(0, 2)
    expect(AuditFile.verify(kept, trust).verdict).toBe("Verified")
    const anchored = stolen.files.flatMap(({ text }) => linesOf(text).filter(isCheckpoint).map(anchoredOf(text)))
    expect(AuditFile.verify(stolen.files, trust, anchored).verdict).toBe("Verified")
    expect(AuditFile.verify(kept, trust, anchored).findings).toMatchObject([
      { _tag: "Tampered", problem: "Missing", seq: seqOf(stolen.files[2]?.text ?? "") }
    ])
    const cut = AuditFile.verify(edit(stolen.files, 2, untilCheckpoint), trust, anchored)
    expect(cut.findings[0]).toMatchObject({ _tag: "Tampered", problem: "Missing" })
    // The holder of the very key that signed can write the log anew; that too shows with an anchor alone.
    const forged = anew(stolen, withChange, stolen.svids.own)
    expect(AuditFile.verify(forged, trust).verdict).toBe("Verified")
    expect(AuditFile.verify(forged, trust, anchored).findings).toMatchObject([{ _tag: "Tampered", problem: "Changed" }])
    const [other] = AuditFile.verify([stolen.other], trust, anchored).findings
    expect(other).toMatchObject({ _tag: "Incomplete", what: "PredecessorMissing" })
  })
)

const anchoredOf =
  (text: string) =>
  (checkpoint: string): AuditAnchor.Anchored => ({
    log: /"log":"(\w+)"/.exec(text)?.[1] ?? "",
    file: 0,
    seq: seqOf(checkpoint),
    hash: "",
    checkpoint
  })
