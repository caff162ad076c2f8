import type { HttpClientError } from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as ClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { RuntimeFiber } from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import type { Connection, Exchange, ExchangeError } from "../../Connector.js"
import { ConnectionError } from "../../TransportError.js"
import { async, isInterruptible, mayHaveNews, withFiber } from "../fiber.js"
import { ClientSpan } from "./clientSpan.js"
import { absolute, type BaseUrl, resolve } from "./url.js"

/** An open connection and the base URL that it leads to. */
export interface OpenConnection {
  readonly connection: Connection
  readonly base: BaseUrl
  /** The request whose exchange is on it. */
  inUseBy?: HttpClientRequest | undefined
}

/** A request that has no connection yet, as far as a source of connections has to know it. */
export interface PendingRequest<out E = HttpClientError> {
  /** Fails if the request cannot be sent to this base: asked before a connection is opened for it. */
  readonly checkUrl: (base: BaseUrl) => Effect.Effect<void, E>
}

/** For a connection that is leased before there is a request. */
export const uncheckedUrl: PendingRequest<never> = { checkUrl: () => Effect.void }

/**
 * A wait for a connection, and once it is decided the right to one or the reason why there is none. `open` is for the fiber that
 * waited, when it runs; `takeIdle` too, or for the call that decides.
 */
export interface Permit<C, E> {
  /** The connection, when it can be used as it is: the usual case, without an effect. */
  readonly takeIdle: () => C | undefined
  /** Otherwise: opens one, or fails with the reason why there is none. */
  readonly open: () => Effect.Effect<C, E>
  /** Ends the wait, or gives back what came of it; called if the connection did not reach its fiber, or was not used there. */
  readonly cancel: () => void
}

/** The connection of a permit, one way or the other. */
export const connectionOf = <C, E>(permit: Permit<C, E>): Effect.Effect<C, E> =>
  Effect.suspend(() => {
    const idle = permit.takeIdle()
    return idle === undefined ? permit.open() : Effect.succeed(idle)
  })

/** Where a request gets its connection from. One that was taken is given back with `release`, exactly once. */
export interface ConnectionSource<C extends OpenConnection, E> {
  /** A usable connection, if one is free now. */
  readonly takeIdle: () => C | undefined
  /** Waits for a connection or has one opened: `onDecided` is called once, with the permit that is returned too. */
  readonly acquire: (request: PendingRequest, onDecided: (permit: Permit<C, E>) => void) => Permit<C, E>
  /** The connection is not needed any more. */
  readonly release: (connection: C) => void
}

type Result<E> = Effect.Effect<HttpClientResponse, E | ExchangeError>

/** Whether a failure says that a connection had ended, or had become unusable, before a byte of the request was written. */
const isStale = (cause: Cause.Cause<unknown>): boolean =>
  Option.exists(Cause.failureOption(cause), (error) => error instanceof ConnectionError && error.outcome === "NotSent")

/**
 * Whether a request that waited is being started, by the one whose connection it has. Where that one ends in the same call, the
 * next starts in its own fiber: of ten thousand that are all refused, each would start within the end of the one before.
 */
let isStarting = false

/** One request, from the lease of its connection to the end of its exchange. */
class RequestRun<C extends OpenConnection, E> implements Exchange, PendingRequest {
  request: HttpClientRequest
  readonly fiber: RuntimeFiber<unknown, unknown>
  path: string
  private readonly source: ConnectionSource<C, E>
  /** The wait of the exchange, until it starts. */
  private permit: Permit<C, E> | undefined = undefined
  /** The connection held; given back exactly once. */
  private held: C | undefined = undefined
  /** Whether the exchange was started on it. */
  private started = false
  /** Whether the connection had carried a request before, or had waited for one. */
  private wasOpen = false
  private abort: (() => void) | undefined = undefined
  /** Its span, where there is a tracer. */
  private readonly span: ClientSpan | undefined

  constructor(
    source: ConnectionSource<C, E>,
    request: HttpClientRequest,
    path: string,
    fiber: RuntimeFiber<unknown, unknown>
  ) {
    this.source = source
    this.request = request
    this.path = path
    this.fiber = fiber
    this.span = ClientSpan.open(fiber, request)
  }

  get traceId(): string | undefined {
    return this.span?.span.traceId
  }

  checkUrl(base: BaseUrl): Effect.Effect<void, HttpClientError> {
    return this.path === "" ? Effect.asVoid(resolve(base, this.request)) : Effect.void
  }

  /** Leases and starts in this very call when a connection is free, so that nothing can come between the two. */
  readonly begin = (resume: (result: Result<E>) => void): void => {
    const idle = this.source.takeIdle()
    if (idle !== undefined) {
      this.wasOpen = true
      this.start(idle, resume)
      return
    }
    const wait = this.span?.waits()
    this.permit = this.source.acquire(this, (permit) => {
      // It is at rest and has not been told to end, so that nothing can come between the permit and the start.
      if (this.permit !== undefined && !isStarting && !mayHaveNews(this.fiber)) this.enterNow(permit, wait, resume)
      else resume(async<HttpClientResponse, E | ExchangeError>((resume) => this.enter(permit, wait, resume)))
    })
  }

  private enter(permit: Permit<C, E>, wait: Tracer.Span | undefined, resume: (result: Result<E>) => void): void {
    const idle = permit.takeIdle()
    this.wasOpen = idle !== undefined
    if (idle !== undefined) this.start(idle, resume)
    else resume(this.open(permit, wait))
  }

  /** In the call that gives the connection, which is another request's: what is thrown is a defect of this one. */
  private enterNow(permit: Permit<C, E>, wait: Tracer.Span | undefined, resume: (result: Result<E>) => void): void {
    isStarting = true
    try {
      this.enter(permit, wait, resume)
    } catch (defect) {
      resume(Effect.die(defect))
    } finally {
      isStarting = false
    }
  }

  private open(permit: Permit<C, E>, wait: Tracer.Span | undefined): Result<E> {
    const opened = wait === undefined ? permit.open() : Effect.withParentSpan(permit.open(), wait)
    return Effect.flatMap(opened, (connection) =>
      async<HttpClientResponse, E | ExchangeError>((resume) => this.start(connection, resume))
    )
  }

  private start(held: C, resume: (result: Result<E>) => void): void {
    this.permit = undefined
    this.held = held
    if (this.path === "") {
      const target = resolve(held.base, this.request)
      if (Either.isLeft(target)) {
        this.release()
        resume(Effect.fail(target.left))
        return
      }
      this.path = target.right.path
    }
    this.request = ClientRequest.setUrl(this.request, absolute(held.base, this.request.url))
    if (this.span !== undefined) this.request = this.span.sent(this.request, held.connection, held.base, this.path)
    this.started = true
    held.inUseBy = this.request
    const abort = held.connection.unsafeStart(this, resume)
    if (this.held !== undefined) this.abort = abort
  }

  onStatus(status: number): void {
    this.span?.status(status)
  }

  onSettled(error?: string): void {
    this.span?.end(error)
    if (this.started) this.release()
  }

  private release(): void {
    const { held } = this
    if (held === undefined) return
    this.held = undefined
    this.abort = undefined
    held.inUseBy = undefined
    this.source.release(held)
  }

  /** Whether the request can be started anew: its open connection turned out to be dead, and nothing of it was used. */
  canRestart(cause: Cause.Cause<unknown>): boolean {
    return this.wasOpen && this.request.body._tag !== "Raw" && isStale(cause)
  }

  /**
   * Interrupted, or failed. An exchange that still runs is aborted, and settles; a connection that broke its contract
   * and threw is given up; what was not used goes back.
   */
  onFailure(cause: Cause.Cause<E | ExchangeError>): Effect.Effect<never, E | ExchangeError> {
    if (this.abort !== undefined) this.abort()
    else if (this.held !== undefined) {
      this.held.connection.unsafeRetire("Error")
      this.release()
    } else this.permit?.cancel()
    this.span?.endCause(cause)
    return Effect.failCause(cause)
  }
}

/**
 * Runs one request: lease and exchange fused into one asynchronous step, interruptible, with an exact end. If the fiber
 * is interrupted before it has the response, the exchange has been aborted and the connection given back when the
 * interruption takes effect; afterwards the response's body decides.
 *
 * An open connection can turn out to be dead: the peer has closed it, or has sent bytes that no request asked for. As long
 * as nothing of the request was written the request then starts anew, on another connection.
 *
 * This costs a third of `Effect.async` with a canceller: an uninterruptible region around an interruptible wait, with
 * one frame between the two that only runs on failure.
 *
 * @param path The request target when it is known already, or `""` to resolve it against the connection's base.
 */
export const execute = <C extends OpenConnection, E>(
  source: ConnectionSource<C, E>,
  request: HttpClientRequest,
  path: string
): Result<E> =>
  withFiber<HttpClientResponse, E | ExchangeError>((fiber, status) => {
    const run = new RequestRun(source, request, path, fiber)
    const exchange = async(run.begin)
    const canBeInterrupted = isInterruptible(status)
    const onFailure = (cause: Cause.Cause<E | ExchangeError>): Result<E> => {
      const failed = run.onFailure(cause)
      if (!run.canRestart(cause)) return failed
      const again = execute(source, request, path)
      return canBeInterrupted ? Effect.interruptible(again) : again
    }
    return canBeInterrupted
      ? Effect.uninterruptible(Effect.catchAllCause(Effect.interruptible(exchange), onFailure))
      : Effect.catchAllCause(exchange, onFailure)
  })
