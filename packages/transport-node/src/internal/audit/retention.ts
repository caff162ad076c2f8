/** How long full files are kept: by their age, and by what all of them take. */
import { open, stat, unlink } from "node:fs/promises"
import * as Either from "effect/Either"
import { decode, type Retired } from "./format.js"
import { fullFiles } from "./origin.js"

/** The header of a file: of which log it is, and what its first record follows. */
const headerOf = async (path: string) => {
  const file = await open(path, "r")
  const { buffer, bytesRead } = await file.read(Buffer.alloc(4096), 0, 4096, 0).finally(() => file.close())
  const [line = ""] = buffer.toString("utf8", 0, bytesRead).split("\n")
  const record = Either.getOrUndefined(decode(line))
  return record?.header === undefined ? undefined : { header: record.header, seq: record.seq, prev: record.prev ?? "" }
}

/** Full files that need not be kept any longer. */
export interface Outdated {
  readonly paths: ReadonlyArray<string>
  readonly retired: Retired
}

/**
 * Chooses the oldest full files, as many as are too old or too much: those of this log only, and never the newest.
 */
export const outdated = async (
  path: string,
  log: string,
  limits: {
    readonly maxTotalSize: number
    readonly maxAgeMillis: number
    readonly now: number
    readonly liveSize: number
  }
): Promise<Outdated | undefined> => {
  const files = await Promise.all(
    (await fullFiles(path)).map(async (file) => ({ ...file, ...(await stat(file.path)) }))
  )
  let total = limits.liveSize + files.reduce((sum, { size }) => sum + size, 0)
  const paths: Array<string> = []
  for (const { mtimeMs, path, size } of files.slice(0, -1)) {
    if (total <= limits.maxTotalSize && limits.now - mtimeMs <= limits.maxAgeMillis) break
    const found = await headerOf(path)
    if (found === undefined || (found.header.version === 2 && found.header.log !== log)) break
    paths.push(path)
    total -= size
  }
  const next = files[paths.length]
  if (paths.length === 0 || next === undefined) return undefined
  const successor = await headerOf(next.path)
  return successor === undefined
    ? undefined
    : { paths, retired: { files: paths.length, upTo: successor.seq - 1, hash: successor.prev } }
}

export const removeAll = async (paths: ReadonlyArray<string>): Promise<void> => {
  for (const path of paths) await unlink(path)
}
