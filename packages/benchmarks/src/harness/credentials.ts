/** One trust domain for a run, as plain text: made in the parent, read back by the workers. */
import { SpiffeId, type X509Bundle, X509BundleSet, X509Context, X509Svid } from "@agentweave/spiffe"
import * as Bundle from "@agentweave/spiffe/X509Bundle"
import { Effect, Redacted } from "effect"

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
  /** Different workloads: see {@link peerId}. */
  readonly peers: ReadonlyArray<Identity>
}

export const serverId = SpiffeId.make("spiffe://bench.test/server")
export const clientId = SpiffeId.make("spiffe://bench.test/client")
export const leafId = SpiffeId.make("spiffe://bench.test/leaf")

/** The path of a peer's ID, of the same length for all. */
export const peerName = (i: number): string => `/peer/${String(i).padStart(4, "0")}`
export const peerId = (i: number): SpiffeId.SpiffeId => SpiffeId.make(`spiffe://bench.test${peerName(i)}`)

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
