/**
 * Which connections were refused according to audit files, and where to look first. The program behind
 * `agentweave explain --audit`.
 *
 * @since 0.1.0
 */
import { RefusalHint } from "@agentweave/inspector"
import { SpiffeId } from "@agentweave/spiffe"
import { FileSystem } from "@effect/platform"
import { Effect, Either, Stream } from "effect"
import { hasProperty } from "effect/Predicate"
import { dateOf, eventOf } from "./internal/auditLine.js"
import { Lines } from "./internal/lines.js"
import { asciiJson, printable } from "./internal/printable.js"
import * as groups from "./internal/refusalGroups.js"
import { UsageError } from "./UsageError.js"

/**
 * Refusals that are alike: one reason, on one side, of one ID.
 *
 * @since 0.1.0
 * @category models
 */
export interface Refusals {
  /** How many connections. */
  readonly count: number
  /** When the first of them was refused, and the last: ISO 8601. */
  readonly first: string
  readonly last: string
  /** Which end of the connection the process was. */
  readonly side: "Client" | "Server"
  /** The error's tag and its reason, as the event has them. */
  readonly reason: string
  /** Which peer was expected, and which one the peer claimed to be; `null` where that is not on record. */
  readonly expectedId: string | null
  readonly actualId: string | null
  /** Of the peers: `HOST:PORT` where we called, `HOST` where we were called. At most 16. */
  readonly addresses: ReadonlyArray<string>
  /** The description of the last one: expected, and seen. */
  readonly description: string
  /** Where to look first; `null` where there is no advice. */
  readonly hint: string | null
  /** A command that tells more; `null` where there is none. */
  readonly command: string | null
}

/** An ID for a command line: what was expected, where that is one ID. */
const idFor = (described: string): string => (Either.isRight(SpiffeId.parse(described)) ? described : "SPIFFE-ID")

const commandFor = ({ event }: groups.Group): string | null => {
  if (event._tag !== "ConnectionRefused") return null
  const { address, error, expectedId, reason, side } = event
  const isOurs = error === "IdentityError"
  if (isOurs && reason !== "LocalCertificateRefused") return "agentweave svid show"
  if (isOurs)
    return "agentweave explain --cert OURS.pem --role client --bundle BUNDLE-OF-THE-SERVER.pem --expect OUR-ID"
  const trust = `--bundle BUNDLE.pem --expect ${idFor(expectedId)}`
  if (error === "PeerVerificationError")
    return side === "Server"
      ? `agentweave explain --cert CLIENT.pem --role client ${trust}`
      : `agentweave explain --connect ${address} ${trust}`
  return side === "Client" ? `agentweave probe ${address} --expect ${idFor(expectedId)}` : null
}

const describe = (event: groups.Refusal): Pick<Refusals, "reason" | "expectedId" | "actualId" | "description"> => {
  switch (event._tag) {
    case "ConnectionRefused": {
      const { actualId, description, error, expectedId, reason } = event
      return { reason: `${error} ${reason}`, expectedId, actualId, description }
    }
    case "ConnectionsRefused":
      return { reason: event.reason, expectedId: null, actualId: null, description: event.description }
  }
}

const refusalsOf = (group: groups.Group): Refusals => ({
  count: group.count,
  first: dateOf(group.first),
  last: dateOf(group.last),
  side: group.event.side,
  ...describe(group.event),
  addresses: group.addresses,
  hint: RefusalHint.hintFor(group.event),
  command: commandFor(group)
})

/** Gives each refusal in a file to `take`. */
const readFile = (path: string, take: (event: groups.Refusal) => void) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const lines = new Lines()
    let records = 0
    yield* Stream.runForEach(fs.stream(path), (piece) =>
      Effect.sync(() => {
        for (const line of lines.push(piece)) {
          const record = Either.getOrUndefined(Either.try((): unknown => JSON.parse(line)))
          if (!hasProperty(record, "seq")) continue
          records++
          const refusal = groups.refusalOf(eventOf(record))
          if (refusal !== undefined) take(refusal)
        }
      })
    )
    if (records === 0) return yield* new UsageError({ message: `expected an audit file, ${path} holds no record` })
  })

const times = (count: number): string => (count === 1 ? "once" : `${count} times`)

const linesOf = (refusals: Refusals): ReadonlyArray<string> => {
  const { actualId, addresses, command, count, description, expectedId, first, hint, last, reason, side } = refusals
  const when = first === last ? `at ${last}` : `from ${first} to ${last}`
  return [
    `${reason}, ${times(count)} ${when}, as a ${side === "Server" ? "server" : "client"}`,
    ...(expectedId === null ? [] : [`  expected   ${expectedId}`]),
    ...(actualId === null ? [] : [`  claimed    ${actualId}`]),
    ...(addresses.length === 0 ? [] : [`  ${side === "Server" ? "from" : "at  "}       ${addresses.join(", ")}`]),
    `  last       ${description}`,
    ...(hint === null ? [] : [`  look first ${hint}`]),
    ...(command === null ? [] : [`  more       ${command}`])
  ]
}

/**
 * Explains the refusals on record in audit files, the newest first. `accepted` is whether there are none; `output` says it for
 * people or, with `json`, for programs. Nothing is verified: that is for `AuditVerify`.
 *
 * @since 0.1.0
 * @category programs
 */
export const run = Effect.fnUntraced(function* (files: ReadonlyArray<string>, json = false) {
  const found = new Map<string, groups.Group>()
  let others = 0
  yield* Effect.forEach(
    files,
    (path) =>
      readFile(path, (event) => {
        if (!groups.add(found, event)) others++
      }),
    { discard: true }
  )
  const newestFirst = Array.from(found.values()).toSorted((a, b) => b.last - a.last)
  const refusals = newestFirst.map(refusalsOf)
  const blocks = refusals.map((one) => linesOf(one).map(printable).join("\n"))
  if (others > 0) blocks.push(`${others} more refusals, of other IDs and reasons`)
  return {
    accepted: refusals.length === 0,
    output: json ? asciiJson({ refusals, others }) : blocks.length === 0 ? "no refusal on record" : blocks.join("\n\n")
  }
})
