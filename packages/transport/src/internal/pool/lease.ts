import type { IdentityError } from "@agentweave/spiffe/IdentityError"
import type * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as ClientRequest from "@effect/platform/HttpClientRequest"
import * as Effect from "effect/Effect"
import type { RequestFailure } from "../../Connector.js"
import type { SecureChannel } from "../../SecureChannel.js"
import { ScopeClosedError, type ScopeClosedErrorReason } from "../../TransportError.js"
import { TypeId } from "../channel.js"
import { type Claim, execute, type Granted, type Requester, type Source } from "../http/exchange.js"
import type { Policy } from "../retry/policy.js"
import { type PoolLink, type PoolSlot, peerOf } from "./link.js"
import { List, Node } from "./linkedList.js"
import type { Pool } from "./pool.js"

/** The outcome of a claim, and a lease when it is taken. */
class Lent<EP, E> implements Granted<PoolLink, E> {
  private readonly pool: Pool<EP>
  private readonly granted: Granted<PoolLink, E>
  private readonly stack: string | undefined
  constructor(pool: Pool<EP>, granted: Granted<PoolLink, E>, stack: string | undefined) {
    this.pool = pool
    this.granted = granted
    this.stack = stack
  }
  take(): PoolLink | undefined {
    return this.pool.lend(this.granted.take(), this.stack)
  }
  open(): Effect.Effect<PoolLink, E> {
    return Effect.map(this.granted.open(), (link) => this.pool.lend(link, this.stack))
  }
}

/** A pool as seen by the requests to one target: each leases a connection for its exchange. */
export const sourceOf = <E>(pool: Pool<E>, key: string, stack?: string): Source<PoolLink, E | RequestFailure> => ({
  take: () => pool.lend(pool.take(key), stack),
  claim: (requester, resume) => pool.claim(key, requester, (granted) => resume(new Lent(pool, granted, stack))),
  settle: (link) => pool.settle(link.slot)
})

const ended = (reason: ScopeClosedErrorReason, slot: PoolSlot): ScopeClosedError =>
  new ScopeClosedError({ reason, target: slot.target.key })

/**
 * One connection, leased for more than one request. Its requests run one at a time, first come first. When the
 * connection ends, the next request opens another one in the same slot.
 */
export class Lease implements Source<PoolLink, RequestFailure> {
  private readonly pool: Pool<unknown>
  readonly slot: PoolSlot
  /** To look after the connection: it is as long idle afterwards as it would be without. */
  private readonly care: boolean
  private busy = false
  private hasEnded = false
  /** Requests that wait for their turn, once there was one. */
  private turns: List<(hasTurn: boolean) => void> | undefined = undefined

  constructor(pool: Pool<unknown>, slot: PoolSlot, care = false) {
    this.pool = pool
    this.slot = slot
    this.care = care
  }

  take(): PoolLink | undefined {
    const { link } = this.slot
    if (this.busy || this.hasEnded || link === undefined || !link.connection.isUsable()) return undefined
    this.busy = true
    return link
  }

  claim(requester: Requester, resume: (granted: Granted<PoolLink, RequestFailure>) => void): Claim {
    let hasTurn = false
    const turn = new Node((isMine: boolean) => {
      hasTurn = isMine
      resume({
        take: () => {
          const { link } = this.slot
          return isMine && link?.connection.isUsable() ? link : undefined
        },
        open: () =>
          isMine
            ? this.pool.open(this.slot, requester, () => ended("Pool", this.slot))
            : Effect.fail(ended("Lease", this.slot))
      })
    })
    if (this.hasEnded) turn.value(false)
    else if (this.busy) (this.turns ??= new List()).push(turn)
    else {
      this.busy = true
      turn.value(true)
    }
    return { withdraw: () => (hasTurn ? this.settle() : this.turns?.remove(turn)) }
  }

  settle(): void {
    const next = this.turns?.head
    if (next !== undefined) {
      this.turns?.remove(next)
      next.value(true)
      return
    }
    this.busy = false
    if (this.hasEnded) this.pool.settle(this.slot, this.care)
  }

  /** No request starts from now on; the slot goes back when the one in flight has ended. */
  end(): void {
    if (this.hasEnded) return
    this.hasEnded = true
    for (let next = this.turns?.head; next !== undefined; next = this.turns?.head) {
      this.turns?.remove(next)
      next.value(false)
    }
    if (!this.busy) this.pool.settle(this.slot, this.care)
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
    return (request: Effect.Effect<HttpClientRequest, RequestFailure>) => Effect.flatMap(request, this.execute)
  }
}
