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

/** How deep values may be nested. The keys of a bundle are at depth 3. */
const maxDepth = 32

/** After how many characters the measuring of a text lets others run. */
const charactersAtOnce = 65_536

/**
 * Why a text would take too long to parse, which is done in one piece: it has many more values than a bundle of its length has,
 * or they are nested deeper. It need not be JSON.
 */
function* measure(text: string): Pieces<string | undefined> {
  // A key of a bundle is an object and an array in 500 characters or more, and a value in 25.
  const maxContainers = 1000 + text.length / 100
  const maxValues = 1000 + text.length / 16
  let depth = 0
  let containers = 0
  let values = 0
  let isQuoted = false
  for (let at = 0; at < text.length; at++) {
    if (at % charactersAtOnce === charactersAtOnce - 1) yield
    const character = text[at]
    if (isQuoted) {
      if (character === "\\") at++
      else if (character === '"') isQuoted = false
    } else if (character === '"') {
      isQuoted = true
    } else if (character === "{" || character === "[") {
      containers++
      if (++depth > maxDepth) return `expected values nested at most ${maxDepth} deep, got a deeper one`
      if (containers > maxContainers)
        return `expected at most ${Math.floor(maxContainers)} objects and arrays, got more`
    } else if (character === "}" || character === "]") {
      depth--
    } else if (character === "," && ++values > maxValues) {
      return `expected at most ${Math.floor(maxValues)} values, got more`
    }
  }
  return undefined
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
  const problem = yield* measure(text)
  if (problem !== undefined) return Either.left(problem)
  yield
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
