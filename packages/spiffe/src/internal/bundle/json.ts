import * as Either from "effect/Either"
import type { Pieces } from "../pieces.js"

/** Facts that `JSON.parse` does not tell: the exact digits of top-level numbers, and names that occur twice in an object. */
export interface Scan {
  /** The raw text of each top-level member whose value is a number, `true`, `false` or `null`. */
  readonly literals: ReadonlyMap<string, string>
  /** The first name that occurs twice in one object. */
  readonly duplicate: string | undefined
}

const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g

/** One open object or array; `name` is the member being read. */
interface Frame {
  readonly names: Set<string> | undefined
  name: string | undefined
}

/** After how many tokens a scan lets others run. */
const tokensAtOnce = 4096

/** Scans a text that `JSON.parse` has accepted, a part of it at a time. */
function* scan(text: string): Pieces<Scan> {
  const literals = new Map<string, string>()
  const frames: Array<Frame> = []
  let tokens = 0
  for (const [part] of text.matchAll(token)) {
    if (++tokens % tokensAtOnce === 0) yield
    const frame = frames.at(-1)
    if (part === "{" || part === "[") {
      frames.push({ names: part === "{" ? new Set() : undefined, name: undefined })
    } else if (part === "}" || part === "]") {
      frames.pop()
    } else if (part === ",") {
      if (frame !== undefined) frame.name = undefined
    } else if (part !== ":" && frame?.names !== undefined) {
      if (frame.name !== undefined) {
        if (frames.length === 1 && !part.startsWith('"')) literals.set(frame.name, part)
        continue
      }
      // A name may be written with escapes; two spellings of it are the same name.
      const name = String(JSON.parse(part))
      if (frame.names.has(name)) return { literals, duplicate: name }
      frame.names.add(name)
      frame.name = name
    }
  }
  return { literals, duplicate: undefined }
}

export interface Parsed {
  readonly value: unknown
  readonly literals: Scan["literals"]
}

/**
 * A JSON text as a value and its {@link Scan}, in steps. Duplicate names are refused: what two readers make of them differs
 * (SPIFFE_Trust_Domain_and_Bundle section 6.3). The refusal never repeats the text.
 */
export function* parse(text: string): Pieces<Either.Either<Parsed, string>> {
  const value: Either.Either<unknown, string> = Either.try({
    try: () => JSON.parse(text),
    catch: () => "expected JSON, got text that is not"
  })
  if (Either.isLeft(value)) return Either.left(value.left)
  yield
  const { duplicate, literals } = yield* scan(text)
  return duplicate === undefined
    ? Either.right({ value: value.right, literals })
    : Either.left(`expected unique names in every JSON object, got ${JSON.stringify(duplicate.slice(0, 64))} twice`)
}
