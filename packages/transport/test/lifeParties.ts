import { IdentityError } from "@agentweave/spiffe"
import { type Credentials, DevAuthority, TestIdentity } from "@agentweave/testkit"
import { Effect, TestClock } from "effect"
import type { Presented, Side } from "./lifeSide.js"

/** What a certificate says that is presented as this. */
const profiles = {
  Proper: { path: "/peer", ttl: "10 hours" },
  ShortLived: { path: "/peer", ttl: "10 minutes" },
  Unexpected: { path: "/somebody-else" },
  Untrusted: { path: "/peer" },
  Expired: { path: "/peer", validity: "Expired" }
} as const

/** Our identity, which the suite of a connection's life changes, and the certificates of the peers we meet in it. */
export const makeParties = Effect.gen(function* () {
  // OpenSSL judges dates by the system's clock.
  yield* TestClock.setTime(Date.now())
  const [ours, ourNext] = yield* Effect.replicateEffect(DevAuthority.make({ trustDomain: "example.org" }), 2)
  const [theirs, theirNext] = yield* Effect.replicateEffect(DevAuthority.make({ trustDomain: "peers.test" }), 2)
  if (!ours || !ourNext || !theirs || !theirNext) return yield* Effect.dieMessage("expected two of each")
  const context = (own: DevAuthority.DevAuthority, peers: DevAuthority.DevAuthority) =>
    Effect.orDie(own.context({ path: "/us", ttl: "10 hours", federatesWith: [peers] }))
  const us = yield* TestIdentity.make(yield* context(ours, theirs))
  const rotate = (...authorities: Parameters<typeof context>) =>
    // What follows the identity takes note of it in its own fiber.
    Effect.zipRight(us.rotate(context(...authorities)), TestClock.adjust(0))
  const withdrawn = new IdentityError.IdentityError({ reason: "Withdrawn", description: "by the test" })
  const identity: Side["identity"] = {
    id: ours.id("/us"),
    renew: rotate(ours, theirs),
    withdraw: Effect.zipRight(us.fail(withdrawn), TestClock.adjust(0)),
    distrustPeers: rotate(ours, theirNext),
    replaceAuthority: rotate(ourNext, theirs)
  }
  const present = (presented: Exclude<Presented, "Silent">): Effect.Effect<Credentials.Credentials> =>
    Effect.orDie((presented === "Untrusted" ? theirNext : theirs).issueRaw(profiles[presented]))
  return { identity, layer: us.layer, peer: theirs.id("/peer"), present }
})
