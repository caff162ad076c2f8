/**
 * Is an audit file as it was written? The program behind `agentweave-audit-verify`.
 *
 * @since 0.1.0
 */
import { parseArgs } from "node:util"
import { PeerMatcher, SpiffeId, X509Bundle, X509BundleSet } from "@agentweave/spiffe"
import { AuditAnchor, AuditFile } from "@agentweave/transport-node"
import { FileSystem, Path } from "@effect/platform"
import { Effect } from "effect"
import { readBundle } from "./internal/certificateFiles.js"
import { asciiJson, printable } from "./internal/printable.js"
import { UsageError } from "./UsageError.js"

const usage = `usage: agentweave-audit-verify FILE|DIRECTORY... [--bundle FILE... --expect SPIFFE-ID...]
         [--anchor FILE...] [--json]

  --bundle FILE       a trust bundle of the signers, PEM or SPIFFE bundle JSON; again for bundles of the past
  --expect SPIFFE-ID  the workload that may have signed; again for several
  --anchor FILE       what an anchor kept of the log; again for several
  --json              the report as JSON

exit code: 0 Verified, 1 Tampered, 2 wrong use, 3 Unsigned, 4 SignerUnknown, 5 Incomplete`

/**
 * The exit code of each verdict; 2 is wrong use.
 *
 * @since 0.1.0
 * @category constants
 */
export const exitCodes: { readonly [verdict in AuditFile.Verdict]: number } = {
  Verified: 0,
  Tampered: 1,
  Unsigned: 3,
  SignerUnknown: 4,
  Incomplete: 5
}

const parse = (args: ReadonlyArray<string>) =>
  Effect.try({
    try: () =>
      parseArgs({
        args: [...args],
        allowPositionals: true,
        options: {
          bundle: { type: "string", multiple: true, default: [] },
          expect: { type: "string", multiple: true, default: [] },
          anchor: { type: "string", multiple: true, default: [] },
          json: { type: "boolean", default: false }
        }
      }),
    catch: (cause) => new UsageError({ message: `${cause instanceof Error ? cause.message : cause}\n${usage}` })
  })

/**
 * The signers that are believed: the expected IDs, under all authorities that were given for their trust domain, old and new.
 */
const readTrust = (bundles: ReadonlyArray<string>, expected: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const ids = yield* Effect.forEach(expected, (text) => SpiffeId.parse(text))
    const fs = yield* FileSystem.FileSystem
    const texts = yield* Effect.forEach(bundles, (path) => fs.readFileString(path))
    const domains = Array.from(new Set(ids.map((id) => SpiffeId.trustDomain(id))))
    if (domains.length > 1) {
      // A PEM bundle does not say whose it is: the authorities of one domain would vouch for the other.
      return yield* new UsageError({ message: `expected IDs of one trust domain, got ${domains.join(" and ")}` })
    }
    const sets = yield* Effect.forEach(domains, (domain) =>
      Effect.flatMap(
        Effect.forEach(texts, (text) => readBundle(domain, text)),
        (read) =>
          X509Bundle.fromDer(
            domain,
            read.flatMap(({ authorities }) => authorities)
          )
      )
    )
    return { bundles: yield* X509BundleSet.make(sets), expected: PeerMatcher.oneOf(ids) }
  })

/** The checkpoints that anchors kept. */
const readAnchors = (paths: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const all: Array<AuditAnchor.Anchored> = []
    for (const path of paths) {
      const anchored = AuditAnchor.parse(yield* fs.readFileString(path))
      if (anchored.length === 0) {
        return yield* new UsageError({ message: `expected the file of an anchor, ${path} holds no checkpoint` })
      }
      all.push(...anchored)
    }
    return all
  })

/** A file as it was read. */
interface Read {
  readonly name: string
  readonly text: Uint8Array
  /** Number of its first record, where it begins like an audit file. */
  readonly first: number | undefined
}

const readFile = (name: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const text = yield* fs.readFile(name)
    const [, seq] = /^\{"seq":(\d+),/.exec(new TextDecoder().decode(text.subarray(0, 64))) ?? []
    return { name, text, first: seq === undefined ? undefined : Number(seq) } satisfies Read
  })

/** A rotated file is called after the live one, with a number behind it. */
const logOf = (path: string): string => path.replace(/\.\d+$/, "")

/** The files of a directory, as the logs that they are called after. What is called after no log is passed over. */
const readDirectory = (directory: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { join } = yield* Path.Path
    const names = (yield* fs.readDirectory(directory)).map((name) => join(directory, name)).toSorted()
    const files = yield* Effect.filter(names, (name) => Effect.map(fs.stat(name), ({ type }) => type === "File"))
    const read = yield* Effect.forEach(files, readFile)
    const logs = new Set(read.flatMap(({ first, name }) => (first === undefined ? [] : [logOf(name)])))
    if (logs.size === 0)
      return yield* new UsageError({ message: `expected audit files in ${directory}, there are none` })
    return {
      logs: Array.from(logs, (log) => ({ log, files: read.filter(({ name }) => logOf(name) === log) })),
      passedOver: read.filter(({ name }) => !logs.has(logOf(name))).map(({ name }) => name)
    }
  })

/** Reads the files that are named, which are one log whatever they are called, and the logs of the directories. */
const readLogs = (paths: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const named: Array<Read> = []
    const logs: Array<{ readonly log: string; readonly files: ReadonlyArray<Read> }> = []
    const passedOver: Array<string> = []
    for (const path of paths) {
      const { type } = yield* fs.stat(path)
      if (type === "Directory") {
        const found = yield* readDirectory(path)
        logs.push(...found.logs)
        passedOver.push(...found.passedOver)
        continue
      }
      if (type !== "File") return yield* new UsageError({ message: `expected a file or a directory, got ${path}` })
      const file = yield* readFile(path)
      if (file.text.length === 0) return yield* new UsageError({ message: `expected an audit file, ${path} is empty` })
      named.push(file)
    }
    if (named.length > 0) logs.unshift({ log: "", files: named })
    return { logs: logs.map(({ files, log }) => ({ log, files: inOrder(files) })), passedOver }
  })

/**
 * In the order of their first records; an unreadable one last, where it is reported. One file under two names, as the log
 * leaves it when its process is killed in the middle of renaming it, is read once.
 */
const inOrder = (files: ReadonlyArray<Read>): ReadonlyArray<Read> =>
  files
    .filter(({ text }, n) => text.length === 0 || files.findIndex((other) => isSame(text, other.text)) === n)
    .toSorted((a, b) => (a.first ?? Number.MAX_SAFE_INTEGER) - (b.first ?? Number.MAX_SAFE_INTEGER))

const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

/**
 * The report of a log that was found in a directory. A file gets its number into its name when the next one is begun: where the
 * live file, which has none, is not there or empty, what it held is missing.
 */
const reportOf = (report: AuditFile.Report, log: string, files: ReadonlyArray<Read>): AuditFile.Report => {
  const isLive = ({ first, name }: Read) => name === log && first !== undefined
  if (log === "" || report.verdict === "Tampered" || files.some(isLive)) return report
  const description = `the newest file, ${log}, is not there: what was recorded after ${report.head.seq} is missing`
  return {
    ...report,
    verdict: AuditFile.gravest([report.verdict, "Incomplete"]),
    findings: [...report.findings, { _tag: "Incomplete", what: "TailOpen", description }]
  }
}

const dateOf = (millis: number): string =>
  Math.abs(millis) <= 8.64e15 ? new Date(millis).toISOString() : "an unknown date"

const summaryOf = (report: AuditFile.Report): string => {
  const signers = Array.from(new Set(report.signers.map(({ ownId }) => ownId)))
  const records = `${report.records} records, number ${report.first} to ${report.head.seq}`
  const signed =
    signers.length === 0 ? "signed by nobody" : `signed up to ${report.signedUpTo} by ${signers.join(", ")}`
  const dates = `from ${dateOf(report.since)} to ${dateOf(report.until)}`
  return `${records}, ${dates}, ${report.isClosed ? "closed" : "not closed"}, ${signed}`
}

const lineOf = (finding: AuditFile.Finding): string => {
  if (finding._tag !== "Tampered") return `  ${finding._tag}: ${finding.description}`
  const file = finding.file === undefined ? "" : `${finding.file} `
  return `  Tampered at ${file}line ${finding.line} (record ${finding.seq}), ${finding.problem}: ${finding.description}`
}

const describe = (report: AuditFile.Report): ReadonlyArray<string> => [
  report.verdict === "Tampered" ? "TAMPERED" : `${report.verdict}: ${summaryOf(report)}`,
  ...report.findings.map(lineOf)
]

const toJson = (log: string, report: AuditFile.Report) => ({
  ...(log === "" ? undefined : { log }),
  ...report,
  signers: report.signers.map(({ ownId, time }) => ({ ownId, time }))
})

/**
 * Verifies the files and directories named by `args`. `verdict` is the gravest of the logs found, `exitCode` its exit code;
 * `output` says it for people, or as JSON with `--json`. No record can steer a terminal through either.
 *
 * @since 0.1.0
 * @category programs
 */
export const run = Effect.fnUntraced(function* (args: ReadonlyArray<string>) {
  const { positionals, values } = yield* parse(args)
  if (positionals.length === 0 || (values.bundle.length === 0) !== (values.expect.length === 0)) {
    return yield* new UsageError({ message: usage })
  }
  const trust = values.bundle.length === 0 ? undefined : yield* readTrust(values.bundle, values.expect)
  const anchored = yield* readAnchors(values.anchor)
  const { logs, passedOver } = yield* readLogs(positionals)
  const reports = logs.map(({ files, log }) => ({
    log,
    report: reportOf(AuditFile.verify(files, trust, anchored), log, files)
  }))
  const verdict = AuditFile.gravest(reports.map(({ report }) => report.verdict))
  const exitCode = exitCodes[verdict]
  if (values.json) {
    const [only] = reports
    const all = reports.map(({ log, report }) => toJson(log, report))
    return {
      verdict,
      exitCode,
      output: asciiJson(reports.length === 1 && only?.log === "" ? all[0] : { verdict, logs: all, passedOver })
    }
  }
  const lines = reports.flatMap(({ log, report }) => [...(log === "" ? [] : [`${log}:`]), ...describe(report)])
  if (passedOver.length > 0) lines.push(`passed over, because they are no audit files: ${passedOver.join(", ")}`)
  if (trust === undefined)
    lines.push("give --bundle and --expect to know whether the signers are the expected workload")
  return { verdict, exitCode, output: lines.map(printable).join("\n") }
})
