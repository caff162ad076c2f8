/** One trust domain for a run: made in the parent, handed to the workers as text, read back by them. */
import { SpiffeId, type X509Bundle, X509BundleSet, X509Context, X509Svid } from "@agentweave/spiffe"
import * as Bundle from "@agentweave/spiffe/X509Bundle"
import { DevAuthority, Credentials as Minted } from "@agentweave/testkit"
import { Effect, Redacted } from "effect"
import { reissue } from "./leaves.js"

export interface Identity {
  /** The leaf and its intermediate. */
  readonly certificates: string
  readonly key: string
}

/** Plain data, as it goes from process to process. */
export interface Credentials {
  readonly ca: string
  readonly server: Identity
  readonly client: Identity
  /** Different certificates of one workload. */
  readonly leaves: ReadonlyArray<Identity>
}

export const serverId = SpiffeId.make("spiffe://bench.test/server")
export const clientId = SpiffeId.make("spiffe://bench.test/client")
export const leafId = SpiffeId.make("spiffe://bench.test/leaf")

const identityOf = (svid: X509Svid.X509Svid): Identity => ({
  certificates: X509Svid.certificatesPem(svid),
  key: Redacted.value(X509Svid.privateKeyPem(svid))
})

/** Root, intermediate, and the workloads' certificates, P-256. */
export const make = (leaves: number): Promise<Credentials> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "bench.test", intermediates: 1 })
      const issue = (path: string) => Effect.map(authority.issue({ path }), identityOf)
      const leaf = yield* authority.issueRaw({ path: "/leaf" })
      const [first, ...issuers] = leaf.certificates
      const key = Redacted.value(leaf.privateKeyPem)
      const above = issuers.map(Minted.toPem).join("")
      return {
        ca: Bundle.toPem(authority.bundle),
        server: yield* issue("/server"),
        client: yield* issue("/client"),
        leaves: reissue(first, Redacted.value(authority.issuer.keyPair.privateKey), leaves).map((der) => ({
          certificates: Minted.toPem(der) + above,
          key
        }))
      }
    })
  )

const bundles = new WeakMap<Credentials, X509Bundle.X509Bundle>()

const bundleOf = (credentials: Credentials): X509Bundle.X509Bundle => {
  const known = bundles.get(credentials)
  if (known !== undefined) return known
  const bundle = Effect.runSync(Bundle.fromPem(SpiffeId.trustDomain(serverId), credentials.ca))
  bundles.set(credentials, bundle)
  return bundle
}

/** What a process with this identity knows: one bundle, shared by all contexts of the same credentials. */
export const contextOf = (credentials: Credentials, identity: Identity): X509Context.X509Context =>
  X509Context.make({
    svid: Effect.runSync(
      X509Svid.fromPem({ certificates: identity.certificates, privateKey: Redacted.make(identity.key) })
    ),
    bundles: X509BundleSet.of(bundleOf(credentials))
  })
