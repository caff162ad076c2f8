import { PeerMatcher, PeerVerifier, SpiffeId, type X509Bundle, X509BundleSet } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { it } from "@effect/vitest"
import { Clock, Effect, Either } from "effect"

/** What a test says of a peer: who it is to the gate, and in which role. */
export interface Peer {
  readonly certificates: ReadonlyArray<Uint8Array>
  readonly bundle?: X509Bundle.X509Bundle
  readonly bundles?: X509BundleSet.X509BundleSet
  readonly matcher?: PeerMatcher.PeerMatcher
  readonly purpose?: PeerVerifier.Purpose
  readonly verifier?: PeerVerifier.PeerVerifier
}

/** A clock that stands at the epoch. */
export const epochClock: Clock.Clock = Object.assign(Clock.make(), {
  unsafeCurrentTimeMillis: () => 0,
  currentTimeMillis: Effect.succeed(0)
})

/** A test at the epoch, where a TestClock starts too, for tables of many rows in which no time passes: it costs nothing. */
export const itAtEpoch = <A, E>(name: string, test: () => Effect.Effect<A, E>): void =>
  it(name, () => Effect.runPromise(Effect.withClock(test(), epochClock)))

/** An authority of example.org made once a file: keys take most of a test's time. Its dates are those of whoever needs it first. */
export const makeShared = (options: Omit<DevAuthority.MakeOptions, "trustDomain"> = {}) =>
  Effect.runSync(Effect.cached(DevAuthority.make({ trustDomain: "example.org", ...options })))

/** Accepts whatever the workload of the tests is called. */
export const anyOfExample = PeerMatcher.memberOf(SpiffeId.trustDomain(SpiffeId.make("spiffe://example.org/x")))

export const inputOf = (
  peer: Peer,
  now: number
): PeerVerifier.VerifyInput & { readonly chain: ReadonlyArray<Uint8Array> } => ({
  chain: peer.certificates,
  bundles: peer.bundles ?? (peer.bundle === undefined ? X509BundleSet.empty : X509BundleSet.of(peer.bundle)),
  matcher: peer.matcher ?? anyOfExample,
  purpose: peer.purpose ?? "ServerAuth",
  now
})

/** The gate's answer at the time of the test's clock. */
export const verify = (peer: Peer) =>
  Effect.map(Clock.currentTimeMillis, (now) => (peer.verifier ?? PeerVerifier.make()).verify(inputOf(peer, now)))

/** The gate's answer as text: `Accepted`, or the reason and the rule that refused. */
export const verdict = (peer: Peer) => Effect.map(verify(peer), describeResult)

export const describeResult = (result: ReturnType<PeerVerifier.PeerVerifier["verify"]>): string =>
  Either.match(result, {
    onRight: () => "Accepted",
    onLeft: (error) => `${error.reason} ${/\[([a-z-]+)\]$/.exec(error.description)?.[1] ?? ""}`.trim()
  })
