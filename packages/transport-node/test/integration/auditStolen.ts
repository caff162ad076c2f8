/** Honest audit logs, written by the log itself, and the SVIDs that an attacker may have got hold of. */
import { readdirSync, readFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { IdentityProvider, type X509Svid } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog } from "@agentweave/transport"
import { type AuditFile, NodeAuditLog } from "@agentweave/transport-node"
import { Context, Effect, Exit, Layer, Scope, TestClock } from "effect"
import { type TextFile, trustIn } from "../auditReports.js"
import { folder, refused } from "./auditEvents.js"

/** The files and SVIDs that an attacker has to work with. */
export interface Stolen {
  /** The files of the log, oldest first; the last one is closed. */
  readonly files: ReadonlyArray<TextFile>
  /** Another honest log of the same workload. */
  readonly other: TextFile
  /**
   * The SVID that signed, one of the right ID by another authority, one of another workload, and one that was issued after
   * the fact.
   */
  readonly svids: { readonly [name in "own" | "foreign" | "colleague" | "later"]: X509Svid.X509Svid }
}

export const day = 24 * 60 * 60 * 1000

const filesAt = (path: string): ReadonlyArray<TextFile> =>
  readdirSync(dirname(path))
    .filter((name) => name.startsWith(basename(path)) && !name.endsWith(".lock"))
    .map((name) => ({ name, text: readFileSync(join(dirname(path), name), "utf8") }))
    .toSorted((a, b) => seqOf(a.text) - seqOf(b.text))

/** Lets flush windows pass until so many events are in the files. */
const written = (path: string, events: number) =>
  Effect.repeat(
    Effect.zipRight(
      TestClock.adjust("100 millis"),
      Effect.promise(() => new Promise<void>(setImmediate))
    ),
    { until: () => filesAt(path).flatMap(({ text }) => text.match(/"event":/g) ?? []).length >= events }
  )

/** An honest log of so many sessions with eight events each, of which each wrote two checkpoints. */
const writeLog = (path: string, sessions: number, identity: Layer.Layer<IdentityProvider.IdentityProvider>) =>
  Effect.gen(function* () {
    for (let session = 0; session < sessions; session++) {
      const scope = yield* Scope.make()
      const built = yield* Layer.build(
        Layer.provide(NodeAuditLog.layerFile({ path, checkpointEvery: 5 }), identity)
      ).pipe(Scope.extend(scope))
      for (let n = 0; n < 8; n++) {
        Context.get(built, AuditLog.AuditLog).unsafeRecord(refused(n))
        if (n === 4) yield* written(path, session * 8 + 5)
      }
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 second")
    }
    return filesAt(path)
  })

/** Files of a world that is a day old; what is stolen of it is stolen a day later. */
export class World extends Context.Tag("World")<
  World,
  { readonly stolen: Stolen; readonly trust: AuditFile.Trust }
>() {}

export const WorldLive = Layer.scoped(
  World,
  Effect.gen(function* () {
    const dir = yield* folder
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const foreign = yield* DevAuthority.make({ trustDomain: "example.org" })
    yield* TestClock.adjust("1 day")
    const context = yield* authority.context({ path: "/web" })
    const identity = IdentityProvider.layerStatic(context)
    const files = yield* writeLog(join(dir, "audit.ndjson"), 3, identity)
    const [other = { name: "", text: "" }] = yield* writeLog(join(dir, "other.ndjson"), 1, identity)
    yield* TestClock.adjust("1 day")
    const svids = {
      own: context.svid,
      foreign: yield* foreign.issue({ path: "/web", validity: { notBefore: 0, notAfter: 10 * day } }),
      colleague: yield* authority.issue({ path: "/api", validity: { notBefore: 0, notAfter: 10 * day } }),
      later: yield* authority.issue({ path: "/web" })
    }
    return { stolen: { files, other, svids }, trust: trustIn(authority, "/web") }
  })
)

export const seqOf = (text: string): number => Number(/^\{"seq":(\d+)/.exec(text)?.[1])
