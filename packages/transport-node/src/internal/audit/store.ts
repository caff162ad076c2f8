/** The file that the log writes to: whether it is still the one with the name, and what takes its place. */
import { codeOf } from "../errors.js"
import { identityOf, lookAt, type Open, type OpenFile, openAppend, renameTo } from "./files.js"
import type { Begins } from "./format.js"

/** The ways in which the file may be displaced while it is written. */
export type Displaced = Extract<Begins, "PredecessorMissing" | "PredecessorCut" | "PredecessorReplaced">

/** Names that what stands in the place of the file may get, of which one is free. */
const asideNames = (path: string, seq: number): ReadonlyArray<string> =>
  Array.from({ length: 10 }, (_, n) => `${path}.replaced.${seq}${n === 0 ? "" : `.${n}`}`)

const renameToFirstFree = async (path: string, names: ReadonlyArray<string>): Promise<void> => {
  const [name, ...others] = names
  if (name === undefined) return
  await renameTo(path, name).catch((cause: unknown) =>
    codeOf(cause) === "EEXIST" && others.length > 0 ? renameToFirstFree(path, others) : Promise.reject(cause)
  )
}

export class Store {
  /** Bytes in the file that are of the chain. */
  size = 0
  private readonly path: string
  private readonly openFile: Open
  private file: OpenFile | undefined
  private inode: string | undefined
  /** A write failed: what it left behind the records is not part of the chain. */
  private isDirty = false
  /** Number of the last record of a full file that could not get its new name yet. */
  private full: number | undefined

  constructor(path: string, openFile: Open) {
    this.path = path
    this.openFile = openFile
  }

  /** Whether the file is no longer the one with the name, or is shorter than it was written. */
  async displaced(): Promise<Displaced | undefined> {
    if (this.inode === undefined) return undefined
    const found = await lookAt(this.path)
    if (found?.inode === this.inode) return found.size < this.size ? "PredecessorCut" : undefined
    return found === undefined ? "PredecessorMissing" : "PredecessorReplaced"
  }

  /** Leaves the file that was displaced: the next write begins another. */
  async leave(): Promise<void> {
    const { file } = this
    this.file = undefined
    this.inode = undefined
    this.full = undefined
    await file?.close().catch(() => {})
  }

  /** Appends with one call: a record is whole or, after a crash within it, the last and torn. `seq` is the last one before. */
  async append(bytes: Uint8Array, seq: number): Promise<void> {
    await this.finish()
    const file = this.file ?? (await this.begin(seq))
    if (this.isDirty) await file.truncate(this.size)
    this.isDirty = true
    await file.appendFile(bytes)
    this.isDirty = false
    this.size += bytes.length
  }

  /** Takes back at once bytes whose append failed, so that readers do not see half a record longer than need be. */
  async takeBack(): Promise<void> {
    if (this.isDirty) await this.file?.truncate(this.size).catch(() => {})
  }

  private async begin(seq: number): Promise<OpenFile> {
    const found = this.inode === undefined ? await lookAt(this.path) : undefined
    if (found !== undefined && found.size > 0) await renameToFirstFree(this.path, asideNames(this.path, seq))
    const file = await openAppend(this.path, this.openFile)
    this.file = file
    if (this.inode === undefined) {
      this.inode = identityOf(await file.stat({ bigint: true })).inode
      this.size = 0
      this.isDirty = false
    }
    return file
  }

  /** The file is full with this record: it gets its own name, and the next write begins another. */
  async fill(last: number): Promise<void> {
    this.full = last
    await this.finish()
  }

  private async finish(): Promise<void> {
    const { file, full } = this
    if (full === undefined) return
    await file?.datasync()
    await renameTo(this.path, `${this.path}.${full}`)
    this.full = undefined
    this.inode = undefined
    this.file = undefined
    await file?.close().catch(() => {})
  }

  sync(): Promise<void> {
    return this.file?.datasync() ?? Promise.resolve()
  }

  async close(): Promise<void> {
    await this.finish()
    const { file } = this
    this.file = undefined
    await file?.datasync()
    await file?.close()
  }
}
