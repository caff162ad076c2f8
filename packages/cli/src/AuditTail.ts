/**
 * The last events of an audit file, and those that come. The program behind `agentweave audit tail`.
 *
 * @since 0.1.0
 */
import { FileSystem } from "@effect/platform"
import { type Duration, Effect, Either, Option } from "effect"
import { hasProperty } from "effect/Predicate"
import { eventLine, eventOf } from "./internal/auditLine.js"
import { Lines } from "./internal/lines.js"
import { asciiJson, printable } from "./internal/printable.js"

/**
 * Which file is shown, and how much of it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The live file of an audit log. */
  readonly file: string
  /** Records to begin with. Default 10. */
  readonly lines?: number | undefined
  /** Goes on with the records that come, also in the file that follows a full one. Default `false`. */
  readonly follow?: boolean | undefined
  /** Records as they are, a line of JSON each. Default `false`. */
  readonly json?: boolean | undefined
}

/** How often a followed file is looked at. */
const pollInterval: Duration.DurationInput = "250 millis"

/** Largest piece that is read at once, in bytes. */
const pieceSize = 64 * 1024

/** Gives the lines behind the place that a file was read up to. */
const readOn = (file: FileSystem.File, lines: Lines, take: (line: string) => Effect.Effect<void>) =>
  Effect.gen(function* () {
    let piece = yield* file.readAlloc(pieceSize)
    while (Option.isSome(piece)) {
      yield* Effect.forEach(lines.push(piece.value), take, { discard: true })
      piece = yield* file.readAlloc(pieceSize)
    }
  })

/** A record as a line for people; `undefined` for what only serves verification. */
const describe = (line: string): string | undefined => {
  const parsed = Either.try((): unknown => JSON.parse(line))
  if (Either.isLeft(parsed)) return `unreadable: ${line}`
  const record = parsed.right
  if (hasProperty(record, "header") && hasProperty(record.header, "begins"))
    return `-- file begins: ${record.header.begins}`
  if (hasProperty(record, "end") && hasProperty(record.end, "state")) return `-- file ends: ${record.end.state}`
  if (hasProperty(record, "dropped")) return `-- not recorded: ${JSON.stringify(record.dropped)}`
  if (hasProperty(record, "retired")) return `-- old files removed: ${JSON.stringify(record.retired)}`
  const event = eventOf(record)
  return event === undefined ? undefined : eventLine(event)
}

/** A record as JSON in ASCII: its own line, where that can be read. */
const asJson = (line: string): string =>
  asciiJson(
    Either.getOrElse(
      Either.try((): unknown => JSON.parse(line)),
      () => ({ unreadable: line })
    )
  )

/** Whether another file stands at the path than the one that is open. */
const isReplaced = (path: string, open: FileSystem.File) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const there = yield* Effect.option(fs.stat(path))
    const ours = yield* open.stat
    // Between the two steps of a rename there is none: the file that is open is still the newest.
    return Option.isSome(there) && Option.getOrUndefined(there.value.ino) !== Option.getOrUndefined(ours.ino)
  })

/** Reads a file to its end, and goes on until another one has taken its place. */
const readFile = (
  path: string,
  isFollowed: boolean,
  take: (line: string) => Effect.Effect<void>,
  atEnd: Effect.Effect<void>
) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const file = yield* fs.open(path)
    const lines = new Lines()
    yield* readOn(file, lines, take)
    yield* atEnd
    if (!isFollowed) return
    while (!(yield* isReplaced(path, file))) {
      yield* Effect.sleep(pollInterval)
      yield* readOn(file, lines, take)
    }
    // The records that were written between the last look and the change of files.
    yield* readOn(file, lines, take)
  }).pipe(Effect.scoped)

/**
 * Gives the last records to `print`, a line each, and with `follow` those that come, until it is interrupted.
 *
 * @since 0.1.0
 * @category programs
 */
export const run = Effect.fnUntraced(function* (options: Options, print: (line: string) => Effect.Effect<void>) {
  const { file, follow = false, json = false, lines: count = 10 } = options
  const show = (line: string): Effect.Effect<void> => {
    const shown = json ? asJson(line) : describe(line)
    return shown === undefined ? Effect.void : print(printable(shown))
  }
  const last: Array<string> = []
  const keep = (line: string) =>
    Effect.sync(() => {
      if (last.push(line) > count) last.shift()
    })
  const printLast = Effect.suspend(() => Effect.forEach(last.splice(0), show, { discard: true }))
  let isPrinting = false
  yield* readFile(
    file,
    follow,
    (line) => (isPrinting ? show(line) : json || describe(line) !== undefined ? keep(line) : Effect.void),
    Effect.zipRight(
      printLast,
      Effect.sync(() => {
        isPrinting = true
      })
    )
  )
  while (follow) yield* readFile(file, true, show, Effect.void)
})
