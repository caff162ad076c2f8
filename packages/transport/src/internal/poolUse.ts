import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type { HttpClient } from "@effect/platform/HttpClient"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { RequestFailure } from "../Connector.js"
import type { SecureChannel } from "../SecureChannel.js"
import { makeClient } from "./channel.js"
import { type Claim, execute } from "./exchange.js"
import { nobody, type OpenError, type Pool, type PoolLink } from "./pool.js"
import { Lease, type LeasedChannel, sourceOf } from "./poolLease.js"

/** How a pool of peers is used. `place` captures where a lease is taken, when leaks are looked for. */
export interface Use<E> {
  readonly pool: Pool<E>
  readonly channelOf: (lease: Lease) => LeasedChannel
  readonly place: (() => string | undefined) | undefined
}

/** One lease being taken: what it holds goes back when `end` is called, whatever it came to. */
class Taking<E> {
  private readonly use: Use<E>
  private readonly peer: string
  private readonly stack: string | undefined
  private wish: Claim | undefined = undefined
  private lease: Lease | undefined = undefined

  constructor(use: Use<E>, peer: string, stack: string | undefined) {
    this.use = use
    this.peer = peer
    this.stack = stack
  }

  /** A channel over a connection that is idle now. */
  take(): LeasedChannel | undefined {
    const link = this.use.pool.take(this.peer)
    return link === undefined ? undefined : this.begin(link)
  }

  private begin(link: PoolLink): LeasedChannel {
    const { channelOf, pool } = this.use
    this.wish = undefined
    this.lease = new Lease(pool, pool.lend(link, this.stack).slot)
    return channelOf(this.lease)
  }

  /** A connection that has to be waited for or opened. */
  claim<A, E1, R1>(
    then: (channel: LeasedChannel) => Effect.Effect<A, E1, R1>
  ): Effect.Effect<A, E | OpenError | InvalidSpiffeIdError | E1, R1> {
    const id = SpiffeId.parse(this.peer)
    if (Either.isLeft(id)) return Effect.fail(id.left)
    const claimed = Effect.async<PoolLink, E | OpenError>((resume) => {
      this.wish = this.use.pool.claim(id.right, nobody, resume)
    })
    return Effect.flatMap(claimed, (link) => then(this.begin(link)))
  }

  end(): void {
    if (this.lease === undefined) this.wish?.withdraw()
    else this.lease.end()
  }
}

/** Leases a connection for one effect. An own bracket: `acquireUseRelease` takes twice as long. */
export const withChannel = <A, EU, RU, E>(
  use: Use<E>,
  peer: string,
  body: (channel: SecureChannel) => Effect.Effect<A, EU, RU>
): Effect.Effect<A, E | OpenError | EU, RU> => {
  const stack = use.place?.()
  return Effect.uninterruptibleMask((restore) => {
    const taking = new Taking(use, peer, stack)
    const run = Effect.suspend(() => {
      const channel = taking.take()
      return channel === undefined ? taking.claim(body) : body(channel)
    })
    return Effect.matchCauseEffect(restore(run), {
      onFailure: (cause) => {
        taking.end()
        return Effect.failCause(cause)
      },
      onSuccess: (value) => {
        taking.end()
        return Exit.succeed(value)
      }
    })
  })
}

/** Leases a connection until the scope closes. */
export const acquire = <E>(use: Use<E>, peer: string): Effect.Effect<SecureChannel, E | OpenError, Scope.Scope> => {
  const stack = use.place?.()
  return Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.scope, (scope) => {
      const taking = new Taking(use, peer, stack)
      const end = Effect.sync(() => taking.end())
      const channel = taking.take()
      if (channel !== undefined) return Effect.as(Scope.addFinalizer(scope, end), channel)
      const claimed = Effect.tapErrorCause(restore(taking.claim(Effect.succeed)), () => end)
      return Effect.tap(claimed, () => Scope.addFinalizer(scope, end))
    })
  )
}

/** Leases a connection for each request. */
export const client = <E>(use: Use<E>, peer: string): HttpClient.With<E | RequestFailure> => {
  const id = SpiffeId.parse(peer)
  if (Either.isLeft(id)) return makeClient(() => Effect.fail(id.left))
  const { place, pool } = use
  const source = sourceOf(pool, id.right)
  return makeClient((request) => execute(place === undefined ? source : sourceOf(pool, id.right, place()), request, ""))
}
