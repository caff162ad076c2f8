/**
 * The state of a running process in a terminal, as its inspector has it. The program behind `agentweave inspect`.
 *
 * @since 0.1.0
 */
import type { Duration } from "effect"
import { Effect, Either, Stream } from "effect"
import { coloursFor } from "./internal/colours.js"
import * as source from "./internal/inspectorSource.js"
import { asciiJson, printable } from "./internal/printable.js"
import { errorJson, type Report } from "./internal/report.js"
import { snapshotLines } from "./internal/snapshotText.js"

/**
 * Where the inspector is, and as whom it is asked.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Where the inspector is: `http:` on a loopback address (`Inspector.layer`), or `https:` on a secure server
   * (`Inspector.layerSecure`), with the path it is mounted at. Default `http://127.0.0.1:9471/`.
   */
  readonly url?: string | undefined
  /** The SPIFFE ID of the process behind an `https:` URL, and with no other. */
  readonly expect?: string | undefined
  /** Limit for the connection, and for the first answer. Default 10 seconds. */
  readonly timeout?: Duration.DurationInput | undefined
  /** Our own identity in files, for an `https:` URL: all three, or none. */
  readonly cert?: string | undefined
  readonly key?: string | undefined
  readonly bundle?: string | undefined
  /** The Workload API that has our identity. Default: what `SPIFFE_ENDPOINT_SOCKET` says. */
  readonly endpoint?: string | undefined
}

/**
 * Where `Inspector.layer` listens by default.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultUrl: string = source.defaultUrl

/**
 * How snapshots are shown.
 *
 * @since 0.1.0
 * @category models
 */
export interface View {
  /** Each snapshot as a line of JSON. Default `false`. */
  readonly json?: boolean | undefined
  /** Whether the text has colours. Default `false`. */
  readonly hasColours?: boolean | undefined
  /** The height of a terminal whose picture is drawn over; without one each snapshot comes behind the one before. */
  readonly rows?: (() => number | undefined) | undefined
}

/** An error that is an answer: nothing was called wrongly, and no inspector has answered. */
const unanswered = (error: { readonly _tag: string; readonly message: string }): Report => ({
  exitCode: 1,
  text: printable(error._tag === "InspectorError" ? error.message : `${error._tag}: ${error.message}`),
  json: { error: errorJson(error) }
})

/**
 * Asks for one snapshot. The exit code is 1 where no inspector answers with one.
 *
 * @since 0.1.0
 * @category programs
 */
export const run = Effect.fnUntraced(function* (options: Options, { hasColours = false }: View = {}) {
  const { snapshot } = yield* source.open(options)
  const seen = yield* Effect.either(snapshot)
  if (Either.isLeft(seen)) return unanswered(seen.left)
  const text = snapshotLines(seen.right.snapshot, coloursFor(hasColours)).join("\n")
  return { exitCode: 0, text, json: seen.right.json } satisfies Report
}, Effect.scoped)

const clearScreen = "\u001b[2J"

/** The lines over the picture before: no line is wrapped, and what is too long for the terminal is cut. */
const drawnOver = (lines: ReadonlyArray<string>, rows: number): string => {
  const room = Math.max(2, rows - 1)
  const kept =
    lines.length <= room
      ? lines
      : [...lines.slice(0, room - 1), `... ${lines.length - room + 1} more lines: a taller terminal, or --json`]
  return `\u001b[H\u001b[?7l${kept.map((line) => `${line}\u001b[K`).join("\n")}\u001b[?7h\u001b[J`
}

/**
 * Gives each snapshot that the inspector sends to `print`, until it is interrupted or the inspector ends: that is the report,
 * whose exit code is 1.
 *
 * @since 0.1.0
 * @category programs
 */
export const watch = Effect.fnUntraced(function* (
  options: Options,
  { hasColours = false, json = false, rows }: View,
  print: (text: string) => Effect.Effect<void>
) {
  const colours = coloursFor(hasColours)
  const { changes } = yield* source.open(options)
  let isFirst = true
  const shown = ({ json: value, snapshot }: source.Seen): string => {
    if (json) return asciiJson(value)
    const lines = snapshotLines(snapshot, colours)
    const height = rows?.()
    const wasFirst = isFirst
    isFirst = false
    if (height !== undefined) return `${wasFirst ? clearScreen : ""}${drawnOver(lines, height)}`
    return (wasFirst ? lines : ["", ...lines]).join("\n")
  }
  return yield* changes.pipe(
    Stream.runForEach((seen) => print(shown(seen))),
    Effect.zipRight(Effect.never),
    Effect.flip,
    Effect.map(unanswered)
  )
}, Effect.scoped)
