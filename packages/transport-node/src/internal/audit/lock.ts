/** One writer a file: the lock beside it. */
import { randomUUID } from "node:crypto"
import { constants } from "node:fs"
import { link, open, readFile, rename, stat, unlink, utimes } from "node:fs/promises"
import { hostname } from "node:os"
import { kill, pid } from "node:process"
import { forkScoped } from "@agentweave/spiffe/Background"
import { AuditError } from "@agentweave/transport/AuditLog"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { codeOf } from "../errors.js"

const Lock = Schema.parseJson(
  Schema.Struct({
    pid: Schema.Number,
    host: Schema.String,
    /** Tells one process from a later one with the same number, where the system says it. */
    started: Schema.String,
    token: Schema.String
  })
)

type Lock = typeof Lock.Type

/** How often a lock is renewed, and after what time without that a lock of another host is nobody's any more. */
const renewEvery = "20 seconds"
const staleAfter = 60_000

const read = (path: string): Promise<string | undefined> => readFile(path, "utf8").catch(() => undefined)

/** Boot and start time of a process: `""` where the system does not say. */
const startOf = async (pid: number): Promise<string> => {
  const boot = await read("/proc/sys/kernel/random/boot_id")
  const line = await read(`/proc/${pid}/stat`)
  if (boot === undefined || line === undefined) return ""
  // The name of the program stands in parentheses, and may hold any character; the start is the 20th field behind it.
  return `${boot.trim()} ${line.slice(line.lastIndexOf(")") + 2).split(" ")[19] ?? ""}`
}

const isAlive = async (lock: Lock): Promise<boolean> => {
  const signalled = Either.try(() => kill(lock.pid, 0))
  // A process that is not ours to signal is there.
  if (Either.isLeft(signalled) && codeOf(signalled.left) !== "EPERM") return false
  return lock.started === "" || lock.started === (await startOf(lock.pid))
}

/** Why a lock that is there is still held; `undefined` when its holder is gone. */
const heldBy = async (path: string, text: string, now: number): Promise<string | undefined> => {
  const decoded = Schema.decodeUnknownOption(Lock)(text)
  const age =
    now -
    (await stat(path).then(
      ({ mtimeMs }) => mtimeMs,
      () => Number.NEGATIVE_INFINITY
    ))
  // Being written at this moment, or no lock of ours.
  if (Option.isNone(decoded)) return age < staleAfter ? "another process" : undefined
  const lock = decoded.value
  const isFresh = age < staleAfter
  if (lock.host !== hostname()) return isFresh ? `process ${lock.pid} on ${lock.host}` : undefined
  // Where the system does not tell one process from a later one with its number, the lock's age does.
  return (await isAlive(lock)) && (lock.started !== "" || isFresh) ? `process ${lock.pid}` : undefined
}

const exclusively = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW

/** Makes the lock, unless there is one. */
const create = async (path: string, text: string): Promise<boolean> => {
  const file = await open(path, exclusively, 0o600).catch((cause: unknown) =>
    codeOf(cause) === "EEXIST" ? undefined : Promise.reject(cause)
  )
  if (file === undefined) return false
  await file.writeFile(text).finally(() => file.close())
  return true
}

/** Puts the lock of a process that is gone out of the way; a lock that another process took meanwhile is put back. */
const remove = async (path: string, text: string, token: string): Promise<void> => {
  const aside = `${path}.${token}`
  await rename(path, aside).catch(() => {})
  const moved = await read(aside)
  if (moved === undefined) return
  if (moved !== text) await link(aside, path).catch(() => {})
  await unlink(aside).catch(() => {})
}

/** The lock of a log, while its scope is open. */
export interface HeldLock {
  /** Whether it is still ours: another process may have taken it for one that was left behind. */
  readonly isHeld: () => Promise<boolean>
}

/**
 * Takes the lock beside an audit file. Fails with `AuditError` when a living process holds it; one whose process is gone is
 * taken over. A lock of another host, as over a shared volume, is taken for left behind when it was not renewed for 60
 * seconds.
 */
export const acquire = (path: string): Effect.Effect<HeldLock, AuditError, Scope.Scope> => {
  const lockPath = `${path}.lock`
  const token = randomUUID()
  const failed = (cause: unknown) =>
    new AuditError({ reason: "Failed", description: `expected to lock the audit file ${path}, it failed`, cause })
  const take = (now: number) =>
    Effect.tryPromise({
      try: async () => {
        const text = JSON.stringify({ pid, host: hostname(), started: await startOf(pid), token } satisfies Lock)
        for (let attempt = 0; attempt < 3; attempt++) {
          if (await create(lockPath, text)) return undefined
          const found = await read(lockPath)
          if (found === undefined) continue
          const holder = await heldBy(lockPath, found, now)
          if (holder !== undefined) return holder
          await remove(lockPath, found, token)
        }
        return "another process"
      },
      catch: failed
    })
  const isHeld = async () => (await read(lockPath))?.includes(token) === true
  const release = Effect.promise(async () => {
    if (await isHeld()) await unlink(lockPath).catch(() => {})
  })
  const renew = Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.promise(() => utimes(lockPath, now / 1000, now / 1000).catch(() => {}))
  )
  return Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const holder = yield* Effect.acquireRelease(take(now), (holder) => (holder === undefined ? release : Effect.void))
    if (holder !== undefined) {
      return yield* new AuditError({
        reason: "Failed",
        description: `expected to be the only writer of the audit file ${path}, ${holder} writes to it (${lockPath})`
      })
    }
    yield* forkScoped(Effect.forever(Effect.zipRight(Effect.sleep(renewEvery), renew)))
    return { isHeld }
  })
}
