/** Changes of the lines and records of an audit file, of which attacks are made. */
import type { X509Svid } from "@agentweave/spiffe"
import * as Forge from "../auditForge.js"
import type { TextFile } from "../auditReports.js"
import { day, type Stolen, seqOf } from "./auditStolen.js"

export const linesOf = (text: string): ReadonlyArray<string> => text.split("\n").slice(0, -1)
export const textOf = (lines: ReadonlyArray<string>): string => lines.map((line) => `${line}\n`).join("")

/** Another text for one of the files. */
export const edit = (files: ReadonlyArray<TextFile>, at: number, change: (lines: ReadonlyArray<string>) => string) =>
  files.map((file, n) => (n === at ? { ...file, text: change(linesOf(file.text)) } : file))

export const editLine = (files: ReadonlyArray<TextFile>, at: number, line: number, change: (line: string) => string) =>
  edit(files, at, (lines) => textOf(lines.with(line, change(lines.at(line) ?? ""))))

/** The whole log as one file that is chained anew. */
export const anew = (
  { files }: Stolen,
  change: (records: ReadonlyArray<Forged>) => ReadonlyArray<Forged>,
  svid?: X509Svid.X509Svid
) => [{ name: "audit.ndjson", text: Forge.chain(change(Forge.parse(files[0]?.text ?? "")), svid) }]

type Forged = Forge.Forged

export const withChange = (records: ReadonlyArray<Forged>) =>
  records.map((record) => ({ ...record, content: record.content.replace('"maxConnections":3', '"maxConnections":4') }))

export const withoutCheckpoints = (records: ReadonlyArray<Forged>) =>
  records.filter(({ content }) => !content.startsWith('"checkpoint"'))

export const isCheckpoint = (line: string): boolean => line.includes('"checkpoint":')

export const untilCheckpoint = (lines: ReadonlyArray<string>): string =>
  textOf(lines.slice(0, lines.findIndex(isCheckpoint) + 1))

/** A file whose numbers begin with 0; its hashes are as they were. */
export const renumbered = (text: string): string => {
  let seq = 0
  return text.replace(/^\{"seq":\d+/gm, () => `{"seq":${seq++}`)
}

export const swapEvents = (lines: ReadonlyArray<string>): string => {
  const [from = "", to = ""] = [lines[2], lines[3]]
  const eventOf = (line: string) => line.slice(line.indexOf('"event"'))
  return textOf(lines.with(2, from.replace(eventOf(from), eventOf(to))).with(3, to.replace(eventOf(to), eventOf(from))))
}

export const movedCheckpoint = (place: string, checkpoint: string): string =>
  place.slice(0, place.indexOf('"checkpoint"')) + checkpoint.slice(checkpoint.indexOf('"checkpoint"'))

/** A record that follows the last one of a file, in its row. */
export const appendedTo = (lines: ReadonlyArray<string>): string =>
  `{"seq":${seqOf(lines.at(-1) ?? "") + 1},"event":{"_tag":"LeaseLeaked","time":0}}`

/** The end of a log, and with it its last signature, dated two days later than it was. */
export const redated = (records: ReadonlyArray<Forged>): ReadonlyArray<Forged> =>
  records.map((record, n) =>
    n < records.length - 2 || record.time === undefined ? record : { ...record, time: record.time + day + 1000 }
  )
