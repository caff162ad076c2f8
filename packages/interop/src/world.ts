/** A trust domain with two workloads, ours and theirs, each behind a Workload API of its own. */
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { type SpiffeId, X509Bundle, X509Context, X509Svid } from "@agentweave/spiffe"
import { DevAuthority, TestIdentity } from "@agentweave/testkit"
import { WorkloadApiServer } from "@agentweave/workload-api"
import { Effect, Redacted, Ref } from "effect"

export interface Workload {
  readonly id: SpiffeId.SpiffeId
  readonly endpoint: string
  readonly context: Effect.Effect<X509Context.X509Context>
}

const paths = { ours: "/ours", theirs: "/theirs" } as const

/** For tools that look for a host's name. */
const dnsNames = ["localhost"]

export const make = Effect.fnUntraced(function* (folder: string) {
  const authority = yield* Ref.make(yield* DevAuthority.make({ trustDomain: "interop.test", intermediates: 1 }))
  const issue = (path: string) =>
    Effect.flatMap(Ref.get(authority), (current) => current.context({ path, dnsNames, ttl: "10 minutes" }))

  const publish = Effect.fnUntraced(function* (path: string) {
    const identity = yield* TestIdentity.make(yield* issue(path))
    const { endpoint } = yield* WorkloadApiServer.make({
      socketPath: join(folder, `${path.slice(1)}.sock`),
      source: identity.provider
    })
    const id = (yield* Ref.get(authority)).id(path)
    return { path, identity, id, endpoint, context: Effect.orDie(identity.provider.x509Context) }
  })
  const ours = yield* publish(paths.ours)
  const theirs = yield* publish(paths.theirs)
  const all = [ours, theirs]

  /** New SVIDs for both. */
  const rotate = Effect.forEach(all, ({ identity, path }) => identity.rotate(issue(path)), { discard: true })

  /** A new root: first both know it, then both have SVIDs below it. */
  const rotateRoot = Effect.gen(function* () {
    const next = yield* (yield* Ref.get(authority)).rotateRoot()
    const bundles = yield* DevAuthority.bundles([next])
    for (const { context, identity } of all) {
      yield* identity.set(X509Context.make({ svid: (yield* context).svid, bundles }))
    }
    yield* Effect.sleep("300 millis")
    yield* Ref.set(authority, next)
    yield* rotate
  })

  const nobody = (yield* Ref.get(authority)).id("/nobody")
  return { ours, theirs, nobody, rotate, rotateRoot }
})

export type World = Effect.Effect.Success<ReturnType<typeof make>>

/** Their SVID as files, for tools that read nothing else. */
export const writeFiles = (world: World, folder: string) =>
  Effect.gen(function* () {
    const { bundles, svid } = yield* world.theirs.context
    const [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map((name) => join(folder, name))
    if (cert === undefined || key === undefined || ca === undefined) return yield* Effect.die("no paths")
    yield* Effect.promise(() => writeFile(cert, X509Svid.certificatesPem(svid)))
    yield* Effect.promise(() => writeFile(key, Redacted.value(X509Svid.privateKeyPem(svid)), { mode: 0o600 }))
    const anchors = Array.from(bundles.bundles.values(), X509Bundle.toPem).join("")
    yield* Effect.promise(() => writeFile(ca, anchors))
    return { cert, key, ca }
  })
