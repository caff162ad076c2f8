import { basename } from "node:path"
import * as Effect from "effect/Effect"
import { sequential } from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { IdentityFiles } from "./identityFiles.js"

/** The directories being watched, and how to change which. */
export interface Watch {
  /**
   * Watches exactly these names of these directories from now on. Answers with the directories that cannot be watched,
   * each with the platform's error code; they are tried again next time.
   */
  readonly retarget: (watched: ReadonlyMap<string, ReadonlySet<string>>) => Effect.Effect<ReadonlyMap<string, string>>
}

interface Watched {
  names: ReadonlySet<string>
  readonly scope: Scope.CloseableScope
  /** The directory itself was moved, removed or broke: what is watched is not what the path names any more. */
  stale: boolean
}

/** Calls `wake` for every change of a watched name, until the scope closes. */
export const make = Effect.fnUntraced(function* (
  files: IdentityFiles,
  wake: () => void
): Effect.fn.Return<Watch, never, Scope.Scope> {
  const directories = new Map<string, Watched>()
  const outer = yield* Effect.scope

  const close = (directory: string, watched: Watched) =>
    Effect.zipRight(
      Effect.sync(() => directories.delete(directory)),
      Scope.close(watched.scope, Exit.void)
    )

  const open = Effect.fnUntraced(function* (directory: string, names: ReadonlySet<string>) {
    const scope = yield* Scope.fork(outer, sequential)
    const watched: Watched = { names, scope, stale: false }
    const notify = (name: string | null) => {
      // The name of the directory itself stands for the directory.
      if (name === basename(directory)) watched.stale = true
      if (name === null || watched.stale || watched.names.has(name)) wake()
    }
    const broken = () => {
      watched.stale = true
      wake()
    }
    const exit = yield* Effect.exit(Scope.extend(files.watch(directory, notify, broken), scope))
    if (Exit.isFailure(exit)) {
      yield* Scope.close(scope, Exit.void)
      return exit
    }
    directories.set(directory, watched)
    // A change since the files were read, and before they were watched, is found by another look.
    wake()
    return exit
  })

  const retarget = Effect.fnUntraced(function* (targets: ReadonlyMap<string, ReadonlySet<string>>) {
    for (const [directory, watched] of Array.from(directories)) {
      if (watched.stale || !targets.has(directory)) yield* close(directory, watched)
    }
    const failed = new Map<string, string>()
    for (const [directory, names] of targets) {
      const watched = directories.get(directory)
      if (watched !== undefined) watched.names = names
      else {
        const exit = yield* open(directory, names)
        if (Exit.isFailure(exit) && exit.cause._tag === "Fail") failed.set(directory, exit.cause.error)
      }
    }
    return failed
  })

  return { retarget }
})
