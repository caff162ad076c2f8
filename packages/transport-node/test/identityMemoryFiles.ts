import { dirname } from "node:path"
import { Effect } from "effect"
import type { IdentityFiles } from "../src/internal/files/identityFiles.js"

interface Watcher {
  readonly notify: (name: string | null) => void
  readonly broken: (code: string) => void
}

const text = (content: string | Uint8Array): Uint8Array =>
  typeof content === "string" ? new TextEncoder().encode(content) : content

/** A file system in memory, with everything that can go wrong on a real one at the test's command. */
export class MemoryFiles {
  readonly contents = new Map<string, Uint8Array>()
  readonly links = new Map<string, string>()
  readonly worldReadable = new Set<string>()
  readonly watchers = new Map<string, Set<Watcher>>()
  /** Codes that watching a directory, or any, fails with. */
  readonly watchFailures = new Map<string, string>()
  /** Called before each step, with its count from 1: the place to change something in the middle of a read. */
  beforeReadLink: (path: string, count: number) => void = () => {}
  beforeRead: (path: string, count: number) => void = () => {}
  reads = 0
  private linkReads = 0

  /** Writes without any event. */
  set(path: string, content: string | Uint8Array): void {
    this.contents.set(path, text(content))
  }

  link(path: string, target: string): void {
    this.links.set(path, target)
  }

  /** The event of a change. */
  touch(path: string): void {
    for (const watcher of this.watchers.get(dirname(path)) ?? []) watcher.notify(path.slice(dirname(path).length + 1))
  }

  write(path: string, content: string | Uint8Array): void {
    this.set(path, content)
    this.touch(path)
  }

  private exists(path: string): boolean {
    return [...this.contents.keys(), ...this.links.keys()].some((one) => one === path || one.startsWith(`${path}/`))
  }

  readonly files: IdentityFiles = {
    readLink: (path) =>
      Effect.suspend(() => {
        this.beforeReadLink(path, ++this.linkReads)
        const target = this.links.get(path)
        return target !== undefined || this.exists(path) ? Effect.succeed(target) : Effect.fail("ENOENT")
      }),
    read: (path) =>
      Effect.suspend(() => {
        this.beforeRead(path, ++this.reads)
        const bytes = this.contents.get(path)
        return bytes === undefined
          ? Effect.fail({ reason: "Unavailable" as const, problem: "ENOENT" })
          : Effect.succeed({ bytes: Uint8Array.from(bytes), worldReadable: this.worldReadable.has(path) })
      }),
    watch: (directory, notify, broken) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          const code = this.watchFailures.get(directory)
          if (code !== undefined) return Effect.fail(code)
          const watcher: Watcher = { notify, broken }
          const all = this.watchers.get(directory) ?? new Set()
          this.watchers.set(directory, all.add(watcher))
          return Effect.succeed(watcher)
        }),
        (watcher) => Effect.sync(() => this.watchers.get(directory)?.delete(watcher))
      )
  }
}
