import type { SecureContext } from "node:tls"
import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type { TrustDomain } from "@agentweave/spiffe/TrustDomain"
import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import * as Either from "effect/Either"
import { makeSecureContext, type TlsVersions } from "../tls/secureContext.js"

/**
 * How many bytes the names of the authorities may take that a server sends to its clients. A message has room for 65,535
 * (RFC 8446 section 4.2.4, RFC 5246 section 7.4.4), some of them for other things, and no handshake succeeds above.
 */
const maxNames = 64_000

/** Each name has its length in front of it. */
const lengthOfLength = 2

/** A bundle that is not loaded, since there is no room for the names of its authorities. */
interface LeftOut {
  readonly bundle: X509Bundle.X509Bundle
  readonly names: number
}

export interface ServerContext {
  readonly secureContext: SecureContext
  readonly leftOut: ReadonlyArray<LeftOut>
}

/**
 * Makes the TLS contexts of one server. Its anchors are the bundles of those trust domains that an acceptable client can
 * come from, and of no other: what others publish is none of this server's business. Where they have too many names
 * together, the bundles with the most are left out, so that only the clients of these domains are refused.
 */
export class ServerContexts {
  private readonly acceptable: ReadonlySet<TrustDomain>
  private readonly versions: TlsVersions
  private readonly lengths = new WeakMap<X509Bundle.X509Bundle, number>()
  /** The generations of bundles that were reported as left out, by trust domain. */
  private reported: ReadonlyMap<TrustDomain, string> = new Map()

  constructor(authorize: PeerMatcher.PeerMatcher, versions: TlsVersions) {
    this.acceptable = PeerMatcher.trustDomains(authorize)
    this.versions = versions
  }

  make(context: X509Context): Either.Either<ServerContext, IdentityError> {
    const own = SpiffeId.trustDomain(context.svid.spiffeId)
    const candidates: Array<LeftOut> = []
    for (const domain of this.acceptable) {
      const bundle = context.bundles.bundles.get(domain)
      if (bundle !== undefined) candidates.push({ bundle, names: this.namesOf(bundle) })
    }
    // Our own trust domain comes first, then those that take the least room.
    const rank = ({ bundle, names }: LeftOut) => (bundle.trustDomain === own ? 0 : names)
    candidates.sort((a, b) => rank(a) - rank(b))
    const loaded: Array<TrustDomain> = []
    const leftOut: Array<LeftOut> = []
    let sum = 0
    for (const candidate of candidates) {
      if (sum + candidate.names > maxNames) leftOut.push(candidate)
      else {
        sum += candidate.names
        loaded.push(candidate.bundle.trustDomain)
      }
    }
    return Either.map(makeSecureContext(context, loaded, this.versions), (secureContext) => ({
      secureContext,
      leftOut
    }))
  }

  private namesOf(bundle: X509Bundle.X509Bundle): number {
    const known = this.lengths.get(bundle)
    if (known !== undefined) return known
    const length = X509Bundle.subjectsLength(bundle) + lengthOfLength * bundle.authorities.length
    this.lengths.set(bundle, length)
    return length
  }

  /** The events of bundles that are left out, each once as long as it stays as it is. */
  problemsOf({ leftOut }: ServerContext, time: number): ReadonlyArray<AuditEvent> {
    const before = this.reported
    this.reported = new Map(leftOut.map(({ bundle }) => [bundle.trustDomain, bundle.generation]))
    return leftOut
      .filter(({ bundle }) => before.get(bundle.trustDomain) !== bundle.generation)
      .map(({ bundle, names }) => ({
        _tag: "IdentityProblem",
        time,
        problem: "Discarded",
        reason: "LimitExceeded",
        description:
          `the bundle of ${bundle.trustDomain} cannot be used, its workloads are not served: expected names of authorities ` +
          `that fit into ${maxNames} bytes with those of smaller bundles, got ${bundle.authorities.length} authorities ` +
          `with names of ${names} bytes`
      }))
  }
}
