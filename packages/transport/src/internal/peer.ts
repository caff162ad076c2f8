import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { PeerDirectory } from "../PeerDirectory.js"
import { ConnectionError } from "../TransportError.js"

/** A peer by its SPIFFE ID, or by the policy that says which peers are accepted. */
export type Peer = string | PeerMatcher.PeerMatcher

/** The matcher of a peer. What is no matcher fails as what is no ID. */
export const matcherOf = (peer: Peer): Either.Either<PeerMatcher.PeerMatcher, InvalidSpiffeIdError> => {
  if (PeerMatcher.isPeerMatcher(peer)) return Either.right(peer)
  const text = typeof peer === "string" ? peer : (JSON.stringify(peer) ?? String(peer))
  return Either.map(SpiffeId.parse(text), PeerMatcher.exactly)
}

export const noAddress = (peer: string, description: string): ConnectionError =>
  new ConnectionError({ reason: "NoAddress", outcome: "NotSent", address: peer, description })

/**
 * The address of a peer. Of a matcher it is that of the first ID it names that has one, or else of the first peer that the
 * directory knows and the matcher accepts.
 */
export const addressOf = (
  directory: PeerDirectory["Type"],
  matcher: PeerMatcher.PeerMatcher
): Effect.Effect<string, ConnectionError> => {
  if (matcher._tag === "Exactly") return directory.resolve(matcher.id)
  const resolveFirst = (ids: ReadonlyArray<SpiffeId.SpiffeId>): Effect.Effect<string, ConnectionError> =>
    ids.reduceRight<Effect.Effect<string, ConnectionError>>(
      (others, id) => Effect.orElse(directory.resolve(id), () => others),
      Effect.fail(noAddress(PeerMatcher.describe(matcher), "expected the address of a peer that it accepts, got none"))
    )
  return Effect.orElse(resolveFirst(PeerMatcher.ids(matcher)), () =>
    Effect.flatMap(directory.peers ?? Effect.succeed([]), (known) =>
      resolveFirst(known.filter((id) => PeerMatcher.matches(matcher, id)))
    )
  )
}

/**
 * The keys of a pool's targets: a peer's ID, or the description of its matcher, by which the matcher is found again. It
 * keeps each matcher that was used: those that a program has written down.
 */
export class PeerKeys {
  private readonly matchers = new Map<string, PeerMatcher.PeerMatcher>()

  /** The key under which connections to the peer are pooled. An ID is its own, and is not judged here. */
  of(peer: Peer): string {
    if (typeof peer === "string") return peer
    const key = PeerMatcher.describe(peer)
    if (peer._tag !== "Exactly" && !this.matchers.has(key) && PeerMatcher.isPeerMatcher(peer)) {
      this.matchers.set(key, peer)
    }
    return String(key)
  }

  matcher(key: string): Either.Either<PeerMatcher.PeerMatcher, InvalidSpiffeIdError> {
    const matcher = this.matchers.get(key)
    return matcher === undefined ? matcherOf(key) : Either.right(matcher)
  }
}
