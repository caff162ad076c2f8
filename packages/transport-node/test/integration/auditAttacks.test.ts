/**
 * Ways to change, cut, replay, reorder, forge, sign anew or launder an audit file, each with its verdict. The files are
 * honest ones, written by the log itself.
 */
import { type AuditAnchor, AuditFile } from "@agentweave/transport-node"
import { expect } from "@effect/vitest"
import { Effect } from "effect"
import * as Forge from "../auditForge.js"
import { kindOf, type TextFile } from "../auditReports.js"
import {
  anew,
  appendedTo,
  edit,
  editLine,
  isCheckpoint,
  linesOf,
  movedCheckpoint,
  redated,
  renumbered,
  swapEvents,
  textOf,
  untilCheckpoint,
  withChange,
  withoutCheckpoints
} from "./auditEdits.js"
import { day, type Stolen, seqOf, World, WorldLive } from "./auditStolen.js"
import { sharing } from "./fixture.js"

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
    [
      "it is chained anew without its header, signed with the stolen key of the time",
      "Tampered",
      "Missing",
      (stolen) => anew(stolen, (records) => records.slice(1), stolen.svids.own)
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
