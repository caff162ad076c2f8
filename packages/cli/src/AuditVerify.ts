/**
 * Is an audit file as it was written? The program behind `agentweave-audit-verify`.
 *
 * @since 0.1.0
 */
import { parseArgs } from "node:util"
import { PeerMatcher, PeerVerifier, SpiffeId, X509Bundle, X509BundleSet } from "@agentweave/spiffe"
import { AuditFile } from "@agentweave/transport-node"
import { FileSystem } from "@effect/platform"
import { Effect, Either, Option } from "effect"
import { UsageError } from "./UsageError.js"

const usage = "usage: agentweave-audit-verify FILE... [--bundle FILE --expect SPIFFE-ID] [--json]"

const parse = (args: ReadonlyArray<string>) =>
  Effect.try({
    try: () =>
      parseArgs({
        args: [...args],
        allowPositionals: true,
        options: { bundle: { type: "string" }, expect: { type: "string" }, json: { type: "boolean", default: false } }
      }),
    catch: (cause) => new UsageError({ message: `${cause instanceof Error ? cause.message : cause}\n${usage}` })
  })

/** Whether every signer's certificate was, when it signed, one of the expected workload's. */
const badSigner = (signers: ReadonlyArray<AuditFile.Signer>, bundlePem: string, expect: string) =>
  Effect.gen(function* () {
    const id = yield* SpiffeId.parse(expect)
    const bundle = yield* X509Bundle.fromPem(SpiffeId.trustDomain(id), bundlePem)
    const bundles = yield* X509BundleSet.make([bundle])
    const verifier = PeerVerifier.make()
    for (const { certificates, time } of signers) {
      const judged = verifier.verify({
        chain: certificates,
        bundles,
        matcher: PeerMatcher.exactly(id),
        purpose: "ClientAuth",
        now: time
      })
      if (Either.isLeft(judged)) return Option.some(judged.left.message)
    }
    return Option.none<string>()
  })

/** What the log itself says is missing. */
const missing = (lost: ReadonlyArray<{ readonly from: number; readonly to: number }>): string =>
  lost.map(({ from, to }) => `; records ${from} to ${to} are LOST: their file was taken away`).join("")

const describe = (found: AuditFile.Verification): string => {
  switch (found._tag) {
    case "Intact":
      return `intact: ${found.records} records up to number ${found.head.seq}, closed and signed by ${found.signers.map(({ ownId }) => ownId).join(", ")}${missing(found.lost)}`
    case "Interrupted":
      return `in order up to record ${found.head.seq}, signed up to record ${found.signedUpTo}: ${found.description}${missing(found.lost)}`
    case "Tampered":
      return `TAMPERED at line ${found.line} (record ${found.seq}), ${found.problem}: ${found.description}`
  }
}

/**
 * Verifies the files named by `args`, in their order. `intact` is false when one was tampered with, or signed by another
 * than expected; `output` says it for people, or as JSON with `--json`.
 *
 * @since 0.1.0
 * @category programs
 */
export const run = Effect.fnUntraced(function* (args: ReadonlyArray<string>) {
  const { positionals, values } = yield* parse(args)
  if (positionals.length === 0 || (values.bundle === undefined) !== (values.expect === undefined)) {
    return yield* new UsageError({ message: usage })
  }
  const fs = yield* FileSystem.FileSystem
  const text = yield* Effect.forEach(positionals, (path) => fs.readFileString(path))
  const found = AuditFile.verify(text.join(""))
  const stranger =
    found._tag === "Tampered" || values.bundle === undefined || values.expect === undefined
      ? Option.none<string>()
      : yield* badSigner(found.signers, yield* fs.readFileString(values.bundle), values.expect)
  const intact = found._tag !== "Tampered" && Option.isNone(stranger)

  if (values.json) {
    const signers = found._tag === "Tampered" ? [] : found.signers.map(({ ownId, time }) => ({ ownId, time }))
    return { intact, output: JSON.stringify({ ...found, signers, badSigner: Option.getOrNull(stranger) }) }
  }
  const lines = [describe(found)]
  if (Option.isSome(stranger)) lines.push(`TAMPERED: a checkpoint is signed by another: ${stranger.value}`)
  else if (found._tag !== "Tampered" && values.bundle === undefined) {
    lines.push("signers are not verified: give --bundle and --expect to know that they are the workload's")
  }
  return { intact, output: lines.join("\n") }
})
