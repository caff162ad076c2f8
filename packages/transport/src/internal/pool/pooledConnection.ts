import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { CloseReason } from "../../AuditEvent.js"
import type { AuditError } from "../../AuditLog.js"
import type { Connection } from "../../Connector.js"
import { ConnectionError, TimeoutError, type TransportError } from "../../TransportError.js"
import { withFiber } from "../fiber.js"
import type { OpenConnection, PendingRequest } from "../http/exchange.js"
import type { BaseUrl } from "../http/url.js"
import type { PoolState, PoolTarget, Slot, SocketWaiter } from "./state.js"

/** A connection in a pool. It belongs to one slot for all its life. */
export interface PooledConnection extends OpenConnection {
  readonly slot: PoolSlot
  readonly scope: Scope.CloseableScope
  readonly createdAt: number
}

export type PoolSlot = Slot<PooledConnection>

/** The peer of a slot: the one it is for, or of a matcher's the one that was verified. */
export const peerOf = ({ pooled, target: { key } }: PoolSlot): SpiffeId.SpiffeId =>
  pooled === undefined || SpiffeId.isSpiffeId(key) ? SpiffeId.make(key) : pooled.connection.peer.spiffeId

/** The errors that a connection could not be opened with. */
export type OpenError = TransportError | AuditError

/** How connections are opened. */
export interface OpenOptions {
  /** How long a connection may take to leave the wire when another one waits for its place, in milliseconds. */
  readonly wireTimeout: number
  readonly address: (key: string) => Effect.Effect<BaseUrl, OpenError>
  readonly connect: (
    key: string,
    base: BaseUrl,
    onClose: (reason: CloseReason) => void
  ) => Effect.Effect<Connection, OpenError, Scope.Scope>
}

/** A handshake as a span, below the request that needed it. The key is a peer's ID, or an origin. */
const handshakeSpan = <A, E>(connect: Effect.Effect<A, E>, key: string, { host, port }: BaseUrl): Effect.Effect<A, E> =>
  Effect.withSpan(connect, "transport.handshake", {
    kind: "client",
    captureStackTrace: false,
    attributes: {
      "server.address": host,
      "server.port": port,
      ...(SpiffeId.isSpiffeId(key) ? { "spiffe.peer.id": key } : undefined)
    }
  })

const brokenOnArrival = (address: string): OpenError =>
  new ConnectionError({
    reason: "Closed",
    outcome: "NotSent",
    address,
    description: "expected an open connection, it ended before its first request"
  })

/** The connections of a pool, from the first byte of a handshake until they are off the wire. */
export class PooledConnections {
  /** Connections established so far. */
  created = 0
  /** Connections that were established and have ended. */
  ended = 0
  isClosed = false
  /** The fibers that open one. */
  readonly opening = new Set<Fiber.RuntimeFiber<PooledConnection, unknown>>()
  private readonly open = new Set<PooledConnection>()
  private readonly options: OpenOptions
  private readonly state: PoolState<PooledConnection>
  private readonly now: () => number
  private readonly fork: (effect: Effect.Effect<unknown>) => void

  constructor(
    options: OpenOptions,
    state: PoolState<PooledConnection>,
    now: () => number,
    fork: (effect: Effect.Effect<unknown>) => void
  ) {
    this.options = options
    this.state = state
    this.now = now
    this.fork = fork
  }

  /**
   * Opens the connection of a leased slot; on failure the slot stays leased. It is a fiber of its own, so that the end
   * of the pool can abandon it.
   */
  openFor<ER, EC>(
    slot: PoolSlot,
    request: PendingRequest<ER>,
    closed: () => EC
  ): Effect.Effect<PooledConnection, OpenError | ER | EC> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.fork(this.openInFiber(slot, request)), (fiber) =>
        Effect.flatMap(
          Effect.catchAllCause(restore(Fiber.await(fiber)), (cause) =>
            Effect.zipRight(Fiber.interrupt(fiber), Effect.failCause(cause))
          ),
          (exit): Effect.Effect<PooledConnection, OpenError | ER | EC> =>
            Exit.isInterrupted(exit) && this.isClosed ? Effect.fail(closed()) : exit
        )
      )
    )
  }

  private openInFiber<ER>(
    slot: PoolSlot,
    request: PendingRequest<ER>
  ): Effect.Effect<PooledConnection, OpenError | ER> {
    return withFiber<PooledConnection, OpenError | ER>((fiber) => {
      if (this.isClosed) return Effect.interrupt
      this.opening.add(fiber)
      return Effect.interruptible(
        Effect.tap(this.options.address(slot.target.key), (base) => request.checkUrl(base))
      ).pipe(
        Effect.flatMap((base) =>
          Effect.zipRight(
            this.reserveSocket(slot.target),
            handshakeSpan(this.connect(slot, base), slot.target.key, base)
          )
        ),
        Effect.ensuring(Effect.sync(() => this.opening.delete(fiber)))
      )
    }).pipe(Effect.uninterruptible)
  }

  /** Waits until a connection that was given up is off the wire, where it stands in the way. */
  private reserveSocket(target: PoolTarget<PooledConnection>): Effect.Effect<void, OpenError> {
    return Effect.suspend(() => {
      let outcome: "Waiting" | "Reserved" | "TimedOut" = "Waiting"
      let resume = (): void => {}
      const finish = (result: "Reserved" | "TimedOut"): void => {
        outcome = result
        resume()
      }
      const waiter: SocketWaiter<PooledConnection> = { target, proceed: () => finish("Reserved") }
      if (this.state.reserveSocket(waiter)) return Effect.void
      const expire = Effect.sync(() => {
        if (outcome === "Waiting") finish("TimedOut")
      })
      const wait = Effect.async<void, OpenError>((callback) => {
        resume = () => callback(outcome === "Reserved" ? Effect.void : Effect.fail(this.wireTimeout(target.key)))
        if (outcome !== "Waiting") resume()
      })
      return Effect.flatMap(
        Effect.fork(Effect.interruptible(Effect.delay(expire, Duration.millis(this.options.wireTimeout)))),
        (timer) =>
          Effect.catchAllCause(Effect.interruptible(wait), (cause) => {
            if (outcome === "Reserved") this.state.releaseSocket(target)
            else this.state.cancelSocket(waiter)
            return Effect.failCause(cause)
          }).pipe(Effect.ensuring(Fiber.interruptFork(timer)))
      )
    })
  }

  private wireTimeout(key: string): OpenError {
    return new TimeoutError({
      phase: "Acquire",
      outcome: "NotSent",
      limit: Duration.millis(this.options.wireTimeout),
      target: key
    })
  }

  /** Opens a connection whose socket is reserved, and releases the socket when it has ended or never came to be. */
  private connect(slot: PoolSlot, base: BaseUrl): Effect.Effect<PooledConnection, OpenError> {
    const { key } = slot.target
    return Effect.flatMap(Scope.make(), (scope) => {
      let pooled: PooledConnection | undefined
      let hasEnded = false
      const end = (): void => {
        if (hasEnded) return
        hasEnded = true
        this.state.releaseSocket(slot.target)
        if (pooled !== undefined) this.onEnd(pooled)
      }
      const attempt = Scope.extend(this.options.connect(key, base, end), scope)
      return Effect.flatMap(
        Effect.exit(Effect.interruptible(attempt)),
        (exit): Effect.Effect<PooledConnection, OpenError> => {
          if (Exit.isSuccess(exit) && !hasEnded) {
            pooled = { connection: exit.value, base, slot, scope, createdAt: this.now() }
            slot.pooled = pooled
            this.open.add(pooled)
            this.created++
            return Effect.succeed(pooled)
          }
          const failure = Exit.flatMap(exit, ({ address }) => Exit.fail(brokenOnArrival(address)))
          return Effect.zipRight(Effect.ensuring(Scope.close(scope, failure), Effect.sync(end)), failure)
        }
      )
    })
  }

  /** A connection is off the wire. One that is leased keeps its slot until the lease ends. */
  private onEnd(pooled: PooledConnection): void {
    this.open.delete(pooled)
    this.ended++
    if (pooled.slot.status === "Idle") this.state.drop(pooled.slot)
    if (!this.isClosed) this.fork(Scope.close(pooled.scope, Exit.void))
  }

  /** Opens nothing any more, gives up what is being opened, and closes all that is open. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isClosed = true
    return Effect.zipRight(
      Fiber.interruptAll(Array.from(this.opening)),
      Effect.suspend(() =>
        Effect.forEach(Array.from(this.open), ({ scope }) => Scope.close(scope, Exit.void), {
          concurrency: "unbounded",
          discard: true
        })
      )
    )
  })
}
