import * as fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { X509Bundle, X509Svid } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import type { NodeIdentity } from "@agentweave/transport-node"
import { it } from "@effect/vitest"
import { Effect, Logger, Redacted, type Scope } from "effect"

export interface Generation {
  readonly svid: X509Svid.X509Svid
  readonly bundle: X509Bundle.X509Bundle
  /** By file name. */
  readonly files: Readonly<Record<string, string>>
}

const names = ["svid.pem", "svid_key.pem", "bundle.pem"] as const

/** SVIDs that all verify under the bundle of each, and that no two of which share a key or a bundle. */
export const generations = Effect.runSync(
  Effect.cached(
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      return yield* Effect.forEach([0, 1, 2, 3, 4, 5, 6], () =>
        Effect.gen(function* (): Effect.fn.Return<Generation, unknown> {
          const extra = yield* DevAuthority.make({ trustDomain: "example.org" })
          const svid = yield* authority.issue({ path: "/api" })
          const { bundle } = yield* authority.addRoot(extra.roots[0])
          return {
            svid,
            bundle,
            files: {
              "svid.pem": X509Svid.certificatesPem(svid),
              "svid_key.pem": Redacted.value(X509Svid.privateKeyPem(svid)),
              "bundle.pem": X509Bundle.toPem(bundle)
            }
          }
        })
      )
    })
  )
)

/** In memory where there is such a place: thousands of writes must not wait for a disk. */
const base = fs.existsSync("/dev/shm") ? "/dev/shm" : tmpdir()

export const directory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(base, "identity-files-"))),
  (path) => Effect.sync(() => fs.rmSync(path, { recursive: true, force: true }))
)

export const filesIn = (path: string): NodeIdentity.Files => ({
  certificate: join(path, "svid.pem"),
  key: join(path, "svid_key.pem"),
  bundle: join(path, "bundle.pem")
})

/** A way of putting a generation's files in place, one step at a time; each step is one call of the file system or two. */
type Publisher = (path: string) => (generation: Generation) => ReadonlyArray<() => void>

export const inPlace: Publisher = (path) => (generation) =>
  names.map((name) => () => fs.writeFileSync(join(path, name), generation.files[name] ?? "", { mode: 0o600 }))

export const atomicRename: Publisher = (path) => (generation) =>
  names.map((name) => () => {
    fs.writeFileSync(join(path, `.${name}`), generation.files[name] ?? "", { mode: 0o600 })
    fs.renameSync(join(path, `.${name}`), join(path, name))
  })

/** What the kubelet does: a new directory, a link to it put in place of the old one, the old directory removed. */
export const kubernetes: Publisher = (path) => {
  let counter = 0
  return (generation) => {
    const before = `..${counter}`
    const next = `..${++counter}`
    return [
      () => {
        fs.mkdirSync(join(path, next))
        for (const name of names) fs.writeFileSync(join(path, next, name), generation.files[name] ?? "")
        fs.symlinkSync(next, join(path, "..data_tmp"))
      },
      () => {
        fs.renameSync(join(path, "..data_tmp"), join(path, "..data"))
        if (counter === 1) for (const name of names) fs.symlinkSync(join("..data", name), join(path, name))
        fs.rmSync(join(path, before), { recursive: true, force: true })
      }
    ]
  }
}

/** As {@link kubernetes}, between directories written beforehand: nothing but the swap itself. */
export const linkSwap: Publisher = (path) => (generation) => {
  const target = `..${generation.svid.fingerprint}`
  return [
    () => {
      if (!fs.existsSync(join(path, target))) {
        fs.mkdirSync(join(path, target))
        for (const name of names) fs.writeFileSync(join(path, target, name), generation.files[name] ?? "")
      }
      fs.symlinkSync(target, join(path, "..data_tmp"))
      fs.renameSync(join(path, "..data_tmp"), join(path, "..data"))
      if (!fs.existsSync(join(path, "svid.pem"))) {
        for (const name of names) fs.symlinkSync(join("..data", name), join(path, name))
      }
    }
  ]
}

export const publishers = { inPlace, atomicRename, kubernetes, linkSwap }

/** A test in real time, without the log. */
export const quiet = <A, E>(name: string, test: () => Effect.Effect<A, E, Scope.Scope>) =>
  it.scopedLive(name, () => Effect.provide(test(), Logger.remove(Logger.defaultLogger)))

export const run = (steps: ReadonlyArray<() => void>): void => {
  for (const step of steps) step()
}
