import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import type { HttpClient } from "@effect/platform/HttpClient"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { RequestFailure } from "../../Connector.js"
import type { SecureChannel } from "../../SecureChannel.js"
import { makeClient } from "../channel.js"
import { type Claim, execute, linkOf } from "../http/exchange.js"
import type { Peer, PeerKeys } from "../peer.js"
import type { Policy } from "../retry/policy.js"
import { Lease, type LeasedChannel, sourceOf } from "./lease.js"
import { nobody, type OpenError, type PoolLink } from "./link.js"
import type { Pool } from "./pool.js"

/** How a pool of peers is used. `place` captures where a lease is taken, when leaks are looked for. */
export interface Use<E> {
  readonly pool: Pool<E>
  readonly keys: PeerKeys
  readonly channelOf: (lease: Lease) => LeasedChannel
  /** Retries each request, where that is configured. */
  readonly policy: Policy<"Timeout"> | undefined
  readonly place: (() => string | undefined) | undefined
}

/** Waits for a connection or has one opened; `wish` is told what to withdraw if the effect does not succeed. */
const claim = <E>(
  { keys, pool }: Use<E>,
  key: string,
  wish: (claim: Claim) => void
): Effect.Effect<PoolLink, E | OpenError | InvalidSpiffeIdError> =>
  Effect.zipRight(
    keys.matcher(key),
    Effect.async<PoolLink, E | OpenError>((resume) =>
      wish(pool.claim(key, nobody, (granted) => resume(linkOf(granted))))
    )
  )

/**
 * Leases a connection for one effect. A bracket of its own, since `acquireUseRelease` takes twice as long: `leave` is
 * called by the frame outside of all that can be interrupted, with whatever is held by then.
 */
export const withChannel = <A, EU, RU, E>(
  use: Use<E>,
  peer: Peer,
  body: (channel: SecureChannel) => Effect.Effect<A, EU, RU>
): Effect.Effect<A, E | OpenError | EU, RU> => {
  const { channelOf, pool } = use
  const key = use.keys.of(peer)
  const stack = use.place?.()
  return Effect.uninterruptibleMask((restore) => {
    let wish: Claim | undefined
    let lease: Lease | undefined
    const enter = (link: PoolLink): Effect.Effect<A, EU, RU> => {
      lease = new Lease(pool, pool.lend(link, stack).slot)
      try {
        return body(channelOf(lease))
      } catch (defect) {
        return Effect.die(defect)
      }
    }
    const link = pool.take(key)
    const run =
      link === undefined
        ? Effect.flatMap(
            claim(use, key, (made) => {
              wish = made
            }),
            enter
          )
        : enter(link)
    const leave = (): void => (lease === undefined ? wish?.withdraw() : lease.end())
    return Effect.matchCauseEffect(restore(run), {
      onFailure: (cause) => {
        leave()
        return Effect.failCause(cause)
      },
      onSuccess: (value) => {
        leave()
        return Exit.succeed(value)
      }
    })
  })
}

/** Leases a connection until the scope closes. */
export const acquire = <E>(use: Use<E>, peer: Peer): Effect.Effect<SecureChannel, E | OpenError, Scope.Scope> => {
  const { channelOf, pool } = use
  const key = use.keys.of(peer)
  const stack = use.place?.()
  return Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.scope, (scope) => {
      const enter = (link: PoolLink) => {
        const lease = new Lease(pool, pool.lend(link, stack).slot)
        return Effect.as(
          Scope.addFinalizer(
            scope,
            Effect.sync(() => lease.end())
          ),
          channelOf(lease)
        )
      }
      const link = pool.take(key)
      if (link !== undefined) return enter(link)
      let wish: Claim | undefined
      const claimed = claim(use, key, (made) => {
        wish = made
      })
      const withdraw = Effect.sync(() => wish?.withdraw())
      return Effect.flatMap(
        Effect.tapErrorCause(restore(claimed), () => withdraw),
        enter
      )
    })
  )
}

/** Leases a connection for each request. */
export const client = <E>(use: Use<E>, peer: Peer): HttpClient.With<E | RequestFailure> => {
  const key = use.keys.of(peer)
  const matcher = use.keys.matcher(key)
  if (Either.isLeft(matcher)) return makeClient(() => Effect.fail(matcher.left))
  const { place, policy, pool } = use
  const source = sourceOf(pool, key)
  const once = (request: HttpClientRequest) =>
    execute(place === undefined ? source : sourceOf(pool, key, place()), request, "")
  return makeClient(policy === undefined ? once : (request) => policy.retryRequest(once(request), request))
}
