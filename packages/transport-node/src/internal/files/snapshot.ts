import { createHash } from "node:crypto"
import { resolve as absolute, basename, dirname, isAbsolute, join, parse, sep } from "node:path"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { FileContent, FileProblem, IdentityFiles } from "./identityFiles.js"

/** One file as it was read: its content, or why there is none. */
export interface FileRead {
  readonly path: string
  readonly content: Either.Either<FileContent, FileProblem>
  /** SHA-256 of the content, or the problem: equal for equal reads. */
  readonly digest: string
}

/** Files that were all there, with this content, at one moment. */
export interface Snapshot {
  readonly files: ReadonlyMap<string, FileRead>
  /** Equal for equal content of all files. */
  readonly digest: string
  /** The names to watch, by directory: the files themselves and every link on the way to them. */
  readonly watched: ReadonlyMap<string, ReadonlySet<string>>
}

/** As Linux does. */
const maxLinks = 40

/** How often a set of files that changes while it is read is read again at once. */
const maxAttempts = 10

/** The links one round has followed: each is read once, so that all files behind it are of one generation. */
interface Round {
  readonly targets: Map<string, string | undefined>
  readonly watched: Map<string, Set<string>>
}

const note = (round: Round, path: string): void => {
  const directory = dirname(path)
  const names = round.watched.get(directory) ?? new Set()
  round.watched.set(directory, names.add(basename(path)))
}

const follow = (files: IdentityFiles, round: Round, path: string): Effect.Effect<string | undefined, string> =>
  round.targets.has(path)
    ? Effect.succeed(round.targets.get(path))
    : Effect.tap(files.readLink(path), (target) => Effect.sync(() => round.targets.set(path, target)))

/** The path without links, found by walking it name by name. */
const resolve = Effect.fnUntraced(function* (
  files: IdentityFiles,
  round: Round,
  path: string
): Effect.fn.Return<string, FileProblem> {
  const { root } = parse(absolute(path))
  const names = absolute(path).slice(root.length).split(sep).reverse()
  let current = root
  let followed = 0
  for (let name = names.pop(); name !== undefined; name = names.pop()) {
    if (name === "" || name === ".") continue
    if (name === "..") {
      current = dirname(current)
      continue
    }
    const next = join(current, name)
    const target = yield* follow(files, round, next).pipe(
      Effect.mapError((problem): FileProblem => {
        note(round, next)
        return { reason: "Unavailable", problem }
      })
    )
    if (target === undefined) {
      current = next
      continue
    }
    note(round, next)
    followed += 1
    if (followed > maxLinks) return yield* Effect.fail<FileProblem>({ reason: "Unavailable", problem: "ELOOP" })
    if (isAbsolute(target)) current = parse(target).root
    names.push(
      ...target
        .slice(isAbsolute(target) ? current.length : 0)
        .split(sep)
        .reverse()
    )
  }
  note(round, current)
  return current
})

type Located = ReadonlyMap<string, Either.Either<string, FileProblem>>

const locate = (files: IdentityFiles, round: Round, paths: ReadonlyArray<string>): Effect.Effect<Located> =>
  Effect.map(
    Effect.forEach(paths, (path) =>
      Effect.map(Effect.either(resolve(files, round, path)), (location) => [path, location] as const)
    ),
    (entries) => new Map(entries)
  )

const digestOf = (content: Either.Either<FileContent, FileProblem>): string =>
  Either.match(content, {
    onLeft: ({ problem, reason }) => `${reason} ${problem}`,
    onRight: ({ bytes }) => createHash("sha256").update(bytes).digest("hex")
  })

const collect = (files: IdentityFiles, located: Located): Effect.Effect<ReadonlyArray<FileRead>> =>
  Effect.forEach(located, ([path, location]) =>
    Effect.map(
      Effect.either(Effect.flatMap(location, files.read)),
      (content): FileRead => ({ path, content, digest: digestOf(content) })
    )
  )

const isWhole = (reads: ReadonlyArray<FileRead>): boolean => reads.every(({ content }) => Either.isRight(content))

const changing = (read: FileRead): FileRead => {
  const problem = "a file that changed whenever it was read"
  return { ...read, content: Either.left({ reason: "Unavailable", problem }), digest: problem }
}

const toSnapshot = (reads: ReadonlyArray<FileRead>, round: Round): Snapshot => ({
  files: new Map(reads.map((read) => [read.path, read])),
  digest: reads.map(({ digest }) => digest).join("\n"),
  watched: round.watched
})

/**
 * Reads files as they were at one moment. Two things make it so. Every symbolic link is read once a round, so that files
 * behind one link, like Kubernetes' `..data`, are of the same generation. And every file is read twice, all of them
 * before any is read again: what is equal both times was there, together, between the two. Otherwise another round
 * follows. A file that is missing is looked for along fresh links, since its generation may have been removed meanwhile.
 */
export const readSnapshot = Effect.fnUntraced(function* (
  files: IdentityFiles,
  paths: ReadonlyArray<string>
): Effect.fn.Return<Snapshot> {
  for (let attempt = 1; ; attempt++) {
    const round: Round = { targets: new Map(), watched: new Map() }
    const located = yield* locate(files, round, paths)
    const first = yield* collect(files, located)
    round.targets.clear()
    const second = yield* collect(files, isWhole(first) ? located : yield* locate(files, round, paths))
    const unequal = second.filter((read, index) => read.digest !== first[index]?.digest)
    if (unequal.length === 0) return toSnapshot(second, round)
    if (attempt === maxAttempts) {
      return toSnapshot(
        second.map((read) => (unequal.includes(read) ? changing(read) : read)),
        round
      )
    }
  }
})
