import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { PeerVerifier, Purpose } from "@agentweave/spiffe/PeerVerifier"
import type { X509BundleSet } from "@agentweave/spiffe/X509BundleSet"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import * as X509Svid from "@agentweave/spiffe/X509Svid"
import * as Either from "effect/Either"

/** When, in milliseconds since the epoch, an SVID of ours is known to pass. */
interface Proven {
  readonly from: number
  readonly until: number
}

/** Passes our own SVID through the gate its peers will put it through. */
export class OwnIdentity {
  private readonly proven = new WeakMap<X509Context, Proven>()
  private readonly verifier: PeerVerifier
  private readonly purpose: Purpose

  constructor(verifier: PeerVerifier, purpose: Purpose) {
    this.verifier = verifier
    this.purpose = purpose
  }

  /** Asked once for each identity, and again when a certificate has ended. The value is until when it holds. */
  verify(context: X509Context, now: number): Either.Either<number, IdentityError> {
    const known = this.proven.get(context)
    if (known !== undefined && known.from <= now && now <= known.until) return Either.right(known.until)
    return Either.map(this.validUntil(context.svid, context.bundles, now), (until) => {
      this.proven.set(context, { from: now, until })
      return until
    })
  }

  /** Whether an SVID, an older one too, passes under these bundles. */
  stands(svid: X509Svid.X509Svid, bundles: X509BundleSet, now: number): boolean {
    return Either.isRight(this.validUntil(svid, bundles, now))
  }

  private validUntil(svid: X509Svid.X509Svid, bundles: X509BundleSet, now: number) {
    return X509Svid.validUntil(svid, { bundles, now, verifier: this.verifier, purposes: [this.purpose] })
  }
}
