/**
 * Is an audit file as it was written? The program behind `agentweave-audit-verify`.
 *
 * @since 0.1.0
 */
import { parseArgs } from "node:util"
import { PeerMatcher, SpiffeBundle, SpiffeId, type TrustDomain, X509Bundle, X509BundleSet } from "@agentweave/spiffe"
import { AuditAnchor, AuditFile } from "@agentweave/transport-node"
import { FileSystem, Path } from "@effect/platform"
import { Effect } from "effect"
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

/** The authorities of a bundle file for a trust domain: PEM, or a SPIFFE bundle document. */
const readBundle = (trustDomain: TrustDomain.TrustDomain, text: string) =>
  text.trimStart().startsWith("{")
    ? Effect.map(SpiffeBundle.parse(trustDomain, text), ({ x509Bundle }) => x509Bundle)
    : X509Bundle.fromPem(trustDomain, text)

/**
 * The signers that are believed. A PEM bundle does not say whose it is, so each bundle is taken for every trust domain of an
 * expected ID; all authorities given for one domain, old and new, are taken together.
 */
const readTrust = (bundles: ReadonlyArray<string>, expected: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const ids = yield* Effect.forEach(expected, (text) => SpiffeId.parse(text))
    const fs = yield* FileSystem.FileSystem
    const texts = yield* Effect.forEach(bundles, (path) => fs.readFileString(path))
    const domains = Array.from(new Set(ids.map((id) => SpiffeId.trustDomain(id))))
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

/** Number of the first record of a text, where it is one of an audit file. */
const firstOf = (text: string): number | undefined => {
  const [, seq] = /^\{"seq":(\d+),/.exec(text) ?? []
  return seq === undefined ? undefined : Number(seq)
}

/** A rotated file is called after the live one, with a number behind it. */
const logOf = (path: string): string => path.replace(/\.\d+$/, "")

/** Reads the files, and those of the directories, as logs: the files of each in the order of their records. */
const readLogs = (paths: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { join } = yield* Path.Path
    const logs = new Map<string, Array<AuditFile.File & { readonly first: number }>>()
    const add = (log: string, name: string, first: number, text: string) =>
      logs.set(log, [...(logs.get(log) ?? []), { name, first, text }])
    for (const path of paths) {
      if ((yield* fs.stat(path)).type !== "Directory") {
        const text = yield* fs.readFileString(path)
        const first = firstOf(text)
        if (text === "") return yield* new UsageError({ message: `expected an audit file, ${path} is empty` })
        // Files that are named are one log, whatever they are called.
        add("", path, first ?? 0, text)
        continue
      }
      const before = logs.size
      for (const name of yield* fs.readDirectory(path)) {
        const file = join(path, name)
        if ((yield* fs.stat(file)).type !== "File") continue
        const text = yield* fs.readFileString(file)
        const first = firstOf(text)
        if (first !== undefined) add(logOf(file), file, first, text)
      }
      if (logs.size === before)
        return yield* new UsageError({ message: `expected audit files in ${path}, there are none` })
    }
    return Array.from(logs, ([log, files]) => ({ log, files: files.toSorted((a, b) => a.first - b.first) }))
  })

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
  const reports = (yield* readLogs(positionals)).map(({ files, log }) => ({
    log,
    report: AuditFile.verify(files, trust, anchored)
  }))
  const verdict = AuditFile.gravest(reports.map(({ report }) => report.verdict))
  const exitCode = exitCodes[verdict]
  if (values.json) {
    const [only] = reports
    const logs = reports.map(({ log, report }) => toJson(log, report))
    return {
      verdict,
      exitCode,
      output: asciiJson(reports.length === 1 && only?.log === "" ? logs[0] : { verdict, logs })
    }
  }
  const lines = reports.flatMap(({ log, report }) => [...(log === "" ? [] : [`${log}:`]), ...describe(report)])
  if (trust === undefined)
    lines.push("give --bundle and --expect to know whether the signers are the expected workload")
  return { verdict, exitCode, output: lines.map(printable).join("\n") }
})
