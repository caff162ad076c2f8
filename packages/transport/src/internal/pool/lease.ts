import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import type * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as ClientRequest from "@effect/platform/HttpClientRequest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { ExchangeError } from "../../Connector.js"
import type { SecureChannel } from "../../SecureChannel.js"
import { ScopeClosedError, type ScopeClosedErrorReason } from "../../TransportError.js"
import { makeClient, TypeId } from "../channel.js"
import { async } from "../fiber.js"
import {
  type ConnectionSource,
  connectionOf,
  execute,
  type PendingRequest,
  type Permit,
  uncheckedUrl
} from "../http/exchange.js"
import type { Peer, PeerKeys } from "../peer.js"
import { Queue } from "../queue.js"
import type { Policy } from "../retry/policy.js"
import type { Pool } from "./pool.js"
import { type OpenError, type PooledConnection, type PoolSlot, peerOf } from "./pooledConnection.js"

const scopeClosed = (reason: ScopeClosedErrorReason, slot: PoolSlot): ScopeClosedError =>
  new ScopeClosedError({ reason, target: slot.target.key })

/**
 * One connection, leased for more than one request. Its requests run one at a time, first come first. When the
 * connection ends, the next request opens another one in the same slot.
 */
export class Lease implements ConnectionSource<PooledConnection, ExchangeError> {
  readonly pool: Pool<unknown>
  readonly slot: PoolSlot
  /** A probe's: the connection is as long idle afterwards as it would be without. */
  private readonly isProbe: boolean
  private isBusy = false
  hasEnded = false
  /** Requests that wait for their turn, once there was one. */
  private turns: Queue<Turn> | undefined = undefined

  constructor(pool: Pool<unknown>, slot: PoolSlot, isProbe = false) {
    this.pool = pool
    this.slot = slot
    this.isProbe = isProbe
  }

  takeIdle(): PooledConnection | undefined {
    const { pooled } = this.slot
    if (this.isBusy || this.hasEnded || pooled === undefined || !pooled.connection.isUsable()) return undefined
    this.isBusy = true
    return pooled
  }

  acquire(
    request: PendingRequest,
    onDecided: (permit: Permit<PooledConnection, ExchangeError>) => void
  ): Permit<PooledConnection, ExchangeError> {
    const turn = new Turn(this, request, onDecided)
    if (this.hasEnded) turn.decide(false)
    else if (this.isBusy) turn.place = (this.turns ??= new Queue()).join(turn)
    else {
      this.isBusy = true
      turn.decide(true)
    }
    return turn
  }

  /** A request gives up its turn before it has come. */
  leave(turn: Turn): void {
    this.turns?.leave(turn.place, turn)
  }

  release(): void {
    const next = this.turns?.take()
    if (next !== undefined) {
      next.decide(true)
      return
    }
    this.isBusy = false
    if (this.hasEnded) this.pool.release(this.slot, this.isProbe)
  }

  /** No request starts from now on; the slot goes back when the one in flight has ended. */
  end(): void {
    if (this.hasEnded) return
    this.hasEnded = true
    for (let turn = this.turns?.take(); turn !== undefined; turn = this.turns?.take()) turn.decide(false)
    if (!this.isBusy) this.pool.release(this.slot, this.isProbe)
  }
}

/** One request's wait for its turn on a leased connection, and then its permit. */
class Turn implements Permit<PooledConnection, ExchangeError> {
  private hasTurn = false
  /** Its place in the lease's queue, where it had to wait. */
  place = 0
  private readonly lease: Lease
  private readonly request: PendingRequest
  private readonly onDecided: (permit: Permit<PooledConnection, ExchangeError>) => void

  constructor(
    lease: Lease,
    request: PendingRequest,
    onDecided: (permit: Permit<PooledConnection, ExchangeError>) => void
  ) {
    this.lease = lease
    this.request = request
    this.onDecided = onDecided
  }

  decide(hasTurn: boolean): void {
    this.hasTurn = hasTurn
    this.onDecided(this)
  }

  takeIdle(): PooledConnection | undefined {
    const { pooled } = this.lease.slot
    return this.hasTurn && pooled?.connection.isUsable() ? pooled : undefined
  }

  open(): Effect.Effect<PooledConnection, ExchangeError> {
    const { pool, slot } = this.lease
    return this.hasTurn
      ? pool.connections.openFor(slot, this.request, () => scopeClosed("Pool", slot))
      : Effect.fail(scopeClosed("Lease", slot))
  }

  cancel(): void {
    if (this.hasTurn) this.lease.release()
    else this.lease.leave(this)
  }
}

/** The prototype of every `HttpClient`: its methods, and what makes it one. */
const proto: object = Object.getPrototypeOf(HttpClient.makeWith(() => Effect.never, Effect.succeed))

const Client: new () => Omit<SecureChannel, typeof TypeId | "execute" | "request" | "peerSpiffeId" | "mySpiffeId"> =
  Object.assign(function () {}, { prototype: proto }) as never

/**
 * The channel over a lease. One is made for every lease, so it is a class: `HttpClient.makeWith` takes as long as all the
 * rest of a lease. `preprocess` and `postprocess` are what the combinators of `HttpClient` build on.
 */
export class LeasedChannel extends Client implements SecureChannel {
  readonly mySpiffeId: Effect.Effect<SpiffeId.SpiffeId, IdentityError>
  readonly lease: Lease
  private readonly policy: Policy<"Timeout"> | undefined
  constructor(
    lease: Lease,
    mySpiffeId: Effect.Effect<SpiffeId.SpiffeId, IdentityError>,
    policy: Policy<"Timeout"> | undefined
  ) {
    super()
    this.lease = lease
    this.mySpiffeId = mySpiffeId
    this.policy = policy
  }
  get execute(): SecureChannel["execute"] {
    const { lease, policy } = this
    return policy === undefined
      ? (request) => execute(lease, request, "")
      : (request) => policy.retryRequest(execute(lease, request, ""), request)
  }
  get [TypeId](): typeof TypeId {
    return TypeId
  }
  get peerSpiffeId(): SpiffeId.SpiffeId {
    return peerOf(this.lease.slot)
  }
  get request(): SecureChannel["request"] {
    return (method, url, options) => this.execute(ClientRequest.make(method)(url, options))
  }
  get preprocess() {
    return Effect.succeed<HttpClientRequest>
  }
  get postprocess() {
    return (request: Effect.Effect<HttpClientRequest, ExchangeError>) => Effect.flatMap(request, this.execute)
  }
}

/** A pool whose targets are peers. */
export interface PeerPool<E> {
  readonly pool: Pool<E>
  readonly keys: PeerKeys
  readonly channelOf: (lease: Lease) => LeasedChannel
  /** Retries each request, where that is configured. */
  readonly policy: Policy<"Timeout"> | undefined
  /** The call stack of a lease, where leaks are looked for. */
  readonly captureStack: (() => string | undefined) | undefined
}

type PoolPermit<E> = Permit<PooledConnection, E | OpenError>

/** Waits for a connection or has one opened; `onWait` is given the permit to cancel if the effect does not succeed. */
const waitForConnection = <E>(
  { keys, pool }: PeerPool<E>,
  key: string,
  stack: string | undefined,
  onWait: (permit: PoolPermit<E>) => void
): Effect.Effect<PooledConnection, E | OpenError | InvalidSpiffeIdError> =>
  Effect.zipRight(
    keys.matcher(key),
    async<PooledConnection, E | OpenError>((resume) =>
      onWait(pool.acquire(key, uncheckedUrl, (permit) => resume(connectionOf(permit)), stack))
    )
  )

/**
 * Leases a connection for one effect. A bracket of its own, since `acquireUseRelease` takes twice as long: `leave` is
 * called by the frame outside of all that can be interrupted, with whatever is held by then.
 */
export const withChannel = <A, EU, RU, E>(
  peers: PeerPool<E>,
  peer: Peer,
  body: (channel: SecureChannel) => Effect.Effect<A, EU, RU>
): Effect.Effect<A, E | OpenError | EU, RU> => {
  const { channelOf, pool } = peers
  const key = peers.keys.of(peer)
  const stack = peers.captureStack?.()
  return Effect.uninterruptibleMask((restore) => {
    let permit: PoolPermit<E> | undefined
    let held: Lease | undefined
    const enter = ({ slot }: PooledConnection): Effect.Effect<A, EU, RU> => {
      held = new Lease(pool, slot)
      try {
        return body(channelOf(held))
      } catch (defect) {
        return Effect.die(defect)
      }
    }
    const idle = pool.takeIdle(key, stack)
    const run =
      idle === undefined
        ? Effect.flatMap(
            waitForConnection(peers, key, stack, (waiting) => {
              permit = waiting
            }),
            enter
          )
        : enter(idle)
    const leave = (): void => (held === undefined ? permit?.cancel() : held.end())
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
export const acquire = <E>(
  peers: PeerPool<E>,
  peer: Peer
): Effect.Effect<SecureChannel, E | OpenError, Scope.Scope> => {
  const { channelOf, pool } = peers
  const key = peers.keys.of(peer)
  const stack = peers.captureStack?.()
  return Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.scope, (scope) => {
      const enter = ({ slot }: PooledConnection) => {
        const held = new Lease(pool, slot)
        return Effect.as(
          Scope.addFinalizer(
            scope,
            Effect.sync(() => held.end())
          ),
          channelOf(held)
        )
      }
      const idle = pool.takeIdle(key, stack)
      if (idle !== undefined) return enter(idle)
      let permit: PoolPermit<E> | undefined
      const leased = waitForConnection(peers, key, stack, (waiting) => {
        permit = waiting
      })
      const cancel = Effect.sync(() => permit?.cancel())
      return Effect.flatMap(
        Effect.tapErrorCause(restore(leased), () => cancel),
        enter
      )
    })
  )
}

/** Leases a connection for each request. */
export const client = <E>(peers: PeerPool<E>, peer: Peer): HttpClient.HttpClient.With<E | ExchangeError> => {
  const key = peers.keys.of(peer)
  const matcher = peers.keys.matcher(key)
  if (Either.isLeft(matcher)) return makeClient(() => Effect.fail(matcher.left))
  const { captureStack, policy, pool } = peers
  const source = pool.sourceOf(key)
  const once = (request: HttpClientRequest) =>
    execute(captureStack === undefined ? source : pool.sourceOf(key, captureStack()), request, "")
  return makeClient(policy === undefined ? once : (request) => policy.retryRequest(once(request), request))
}
