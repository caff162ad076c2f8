/** Files of the log, opened so that no other file is ever written to, cut or replaced. */
import { constants, type Stats } from "node:fs"
import { type FileHandle, link, lstat, open, rename, unlink } from "node:fs/promises"
import { codeOf } from "../errors.js"

/** The operations on an open file that the log needs. */
export interface OpenFile {
  readonly appendFile: (bytes: Uint8Array) => Promise<void>
  readonly truncate: (size: number) => Promise<void>
  readonly datasync: () => Promise<void>
  readonly chmod: (mode: number) => Promise<void>
  readonly stat: (options: { readonly bigint: true }) => Promise<{
    readonly dev: bigint
    readonly ino: bigint
    readonly size: bigint
    readonly isFile: () => boolean
  }>
  readonly close: () => Promise<void>
}

export type Open = (path: string, flags: number, mode: number) => Promise<OpenFile>

/** Never through a link, and never waiting for the other end of a pipe. */
const careful = constants.O_NOFOLLOW | constants.O_NONBLOCK

/** Names the kind of thing that stands in the place of a file. */
const kindOf = (found: Pick<Stats, "isFIFO" | "isDirectory" | "isSymbolicLink" | "isSocket">): string =>
  found.isDirectory() ? "a directory" : found.isFIFO() ? "a named pipe" : found.isSocket() ? "a socket" : "a device"

const notAFile = (path: string, kind: string): Error => new Error(`expected a regular file at ${path}, found ${kind}`)

/** The same error, said so that it can be understood, where the system's words do not say it. */
const explained = (path: string, cause: unknown): unknown => {
  switch (codeOf(cause)) {
    case "ELOOP":
      return notAFile(path, "a symbolic link, which is not followed")
    case "EISDIR":
      return notAFile(path, "a directory")
    case "ENXIO":
      return notAFile(path, "a named pipe or a socket")
    default:
      return cause
  }
}

/** Opens the log's file to append to it; makes it where there is none. Its mode is 0600 whatever the umask. */
export const openAppend = async (path: string, openFile: Open): Promise<OpenFile> => {
  const flags = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | careful
  const file = await openFile(path, flags, 0o600).catch((cause: unknown) => Promise.reject(explained(path, cause)))
  if ((await file.stat({ bigint: true })).isFile()) {
    await file.chmod(0o600)
    return file
  }
  await file.close()
  return Promise.reject(notAFile(path, "something else"))
}

/** Opens what is at a path, if anything is, to read it and to cut off a torn record. */
export const openExisting = async (path: string): Promise<FileHandle | undefined> => {
  const file = await open(path, constants.O_RDWR | careful).catch((cause: unknown) =>
    codeOf(cause) === "ENOENT" ? undefined : Promise.reject(explained(path, cause))
  )
  if (file === undefined) return undefined
  const found = await file.stat()
  if (found.isFile()) return file
  await file.close()
  return Promise.reject(notAFile(path, kindOf(found)))
}

/**
 * Gives a file another name; fails where that name is taken by another file. A process that is killed in the middle leaves
 * the file with both names: then it is done the next time.
 */
export const renameTo = (from: string, to: string): Promise<void> =>
  link(from, to).then(
    () => unlink(from),
    async (cause: unknown) => {
      const [before, after] = [await lookAt(from), await lookAt(to)]
      if (before !== undefined && before.inode === after?.inode) return unlink(from)
      // A file system without hard links: the name is looked up first.
      const isWithoutLinks = ["EPERM", "ENOTSUP", "ENOSYS", "EOPNOTSUPP"].includes(String(codeOf(cause)))
      return isWithoutLinks && after === undefined ? rename(from, to) : Promise.reject(cause)
    }
  )

/** A file as the system knows it: what has the name now may be another one. */
export interface Identity {
  readonly inode: string
  readonly size: number
}

export const identityOf = ({
  dev,
  ino,
  size
}: {
  readonly dev: bigint
  readonly ino: bigint
  readonly size: bigint
}): Identity => ({ inode: `${dev}:${ino}`, size: Number(size) })

/** Looks up the file at a path, if there is one; a link is not followed. */
export const lookAt = (path: string): Promise<Identity | undefined> =>
  lstat(path, { bigint: true }).then(identityOf, (cause: unknown) =>
    codeOf(cause) === "ENOENT" ? undefined : Promise.reject(cause)
  )
