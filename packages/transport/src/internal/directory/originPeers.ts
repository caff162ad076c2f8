import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import { RequestError } from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { PeerDirectory } from "../../PeerDirectory.js"
import { parseBase, resolve } from "../http/url.js"

const invalid = (request: HttpClientRequest, description: string) =>
  new RequestError({ request, reason: "InvalidUrl", description })

/** The peers of a directory by the origins of their addresses. */
export class OriginPeers {
  private readonly directory: PeerDirectory["Type"]
  /** The peers found before; asked again each time, because an address may change. */
  private readonly found = new Map<string, SpiffeId>()

  constructor(directory: PeerDirectory["Type"]) {
    this.directory = directory
  }

  /** The one peer that the directory has at the origin of the request's URL. */
  of(request: HttpClientRequest): Effect.Effect<SpiffeId, RequestError> {
    return Effect.flatMap(resolve(undefined, request), ({ base: { origin } }) => {
      const known = this.found.get(origin)
      const search = Effect.suspend(() => this.search(request, origin))
      return known === undefined
        ? search
        : Effect.flatMap(this.isAt(known, origin), (still) => (still ? Effect.succeed(known) : search))
    })
  }

  private isAt(peer: SpiffeId, origin: string): Effect.Effect<boolean> {
    return Effect.match(this.directory.resolve(peer), {
      onFailure: () => false,
      onSuccess: (url) =>
        Either.match(parseBase(url), { onLeft: () => false, onRight: (base) => base.origin === origin })
    })
  }

  private search(request: HttpClientRequest, origin: string): Effect.Effect<SpiffeId, RequestError> {
    this.found.delete(origin)
    const { peers } = this.directory
    if (peers === undefined) {
      return invalid(request, `expected a PeerDirectory that names its peers, to know whose origin ${origin} is`)
    }
    return Effect.flatMap(
      Effect.flatMap(peers, (known) => Effect.filter(known, (peer) => this.isAt(peer, origin))),
      ([peer, other]) => {
        if (peer === undefined) return invalid(request, `expected the origin of a peer of the directory, got ${origin}`)
        if (other !== undefined)
          return invalid(request, `expected one peer at ${origin}, the directory has ${peer} and ${other}`)
        this.found.set(origin, peer)
        return Effect.succeed(peer)
      }
    )
  }
}
