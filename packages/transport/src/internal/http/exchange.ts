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
import type { Connection, Exchange, RequestFailure } from "../../Connector.js"
import { ConnectionError } from "../../TransportError.js"
import { isInterruptible, withFiber } from "../fiber.js"
import { RequestSpan } from "./requestSpan.js"
import { absolute, type Base, resolve } from "./target.js"

/** A connection and where it leads. */
export interface Link {
  readonly connection: Connection
  readonly base: Base
  /** The request whose exchange is on it. */
  inUseBy?: HttpClientRequest | undefined
}

/** Who wants a connection, as far as a source has to know. */
export interface Requester {
  /** Fails if the request cannot be sent to this base: asked before a connection is opened for it. */
  readonly admit: (base: Base) => Effect.Effect<void, HttpClientError>
}

/** What a claim came to, to be looked at by the fiber that made it, when it runs. */
export interface Granted<L, E> {
  /** The connection, when it can be used as it is: the usual case, without an effect. */
  readonly take: () => L | undefined
  /** Otherwise: what opens one, or the reason why there is none. */
  readonly open: () => Effect.Effect<L, E>
}

/** The connection, one way or the other. */
export const linkOf = <L, E>(granted: Granted<L, E>): Effect.Effect<L, E> =>
  Effect.suspend(() => {
    const link = granted.take()
    return link === undefined ? granted.open() : Effect.succeed(link)
  })

/** A wish for a connection, made and not fulfilled yet. */
export interface Claim {
  /** Gives back whatever came of it; called if the connection did not reach its fiber, or was not used there. */
  readonly withdraw: () => void
}

/** Where a request gets its connection from. Whoever got one gives it back with `settle`, exactly once. */
export interface Source<L extends Link, E> {
  /** A usable connection, if one is free now. */
  readonly take: (requester: Requester) => L | undefined
  /** Waits for a connection or has one opened: `resume` is called once, with what gives it to the fiber. */
  readonly claim: (requester: Requester, resume: (granted: Granted<L, E>) => void) => Claim
  /** The connection is not needed any more. */
  readonly settle: (link: L) => void
}

type Result<E> = Effect.Effect<HttpClientResponse, E | RequestFailure>

/** Whether a failure says that a connection had ended, or had become unusable, before a byte of the request was written. */
const isStale = (cause: Cause.Cause<unknown>): boolean =>
  Option.exists(Cause.failureOption(cause), (error) => error instanceof ConnectionError && error.outcome === "NotSent")

/** One request, from the lease of its connection to the end of its exchange. */
class Run<L extends Link, E> implements Exchange, Requester {
  request: HttpClientRequest
  readonly fiber: RuntimeFiber<unknown, unknown>
  path: string
  private readonly source: Source<L, E>
  private wish: Claim | undefined = undefined
  /** The connection held; given back exactly once. */
  private link: L | undefined = undefined
  /** Whether the exchange was started on it. */
  private started = false
  /** Whether the connection had carried a request before, or had waited for one. */
  private wasOpen = false
  private abort: (() => void) | undefined = undefined
  /** Its span, where there is a tracer. */
  private readonly span: RequestSpan | undefined

  constructor(source: Source<L, E>, request: HttpClientRequest, path: string, fiber: RuntimeFiber<unknown, unknown>) {
    this.source = source
    this.request = request
    this.path = path
    this.fiber = fiber
    this.span = RequestSpan.open(fiber, request)
  }

  get traceId(): string | undefined {
    return this.span?.span.traceId
  }

  admit(base: Base): Effect.Effect<void, HttpClientError> {
    return this.path === "" ? Effect.asVoid(resolve(base, this.request)) : Effect.void
  }

  /** Leases and starts in this very call when a connection is free, so that nothing can come between the two. */
  readonly begin = (resume: (result: Result<E>) => void): void => {
    const link = this.source.take(this)
    if (link !== undefined) {
      this.wasOpen = true
      this.start(link, resume)
      return
    }
    const wait = this.span?.waits()
    this.wish = this.source.claim(this, (granted) => {
      resume(
        Effect.async<HttpClientResponse, E | RequestFailure>((resume) => {
          const link = granted.take()
          this.wasOpen = link !== undefined
          if (link !== undefined) this.start(link, resume)
          else resume(this.open(granted, wait))
        })
      )
    })
  }

  private open(granted: Granted<L, E>, wait: Tracer.Span | undefined): Result<E> {
    const opened = wait === undefined ? granted.open() : Effect.withParentSpan(granted.open(), wait)
    return Effect.flatMap(opened, (link) =>
      Effect.async<HttpClientResponse, E | RequestFailure>((resume) => this.start(link, resume))
    )
  }

  private start(link: L, resume: (result: Result<E>) => void): void {
    this.wish = undefined
    this.link = link
    if (this.path === "") {
      const target = resolve(link.base, this.request)
      if (Either.isLeft(target)) {
        this.settle()
        resume(Effect.fail(target.left))
        return
      }
      this.path = target.right.path
    }
    this.request = ClientRequest.setUrl(this.request, absolute(link.base, this.request.url))
    if (this.span !== undefined) this.request = this.span.sent(this.request, link.connection, link.base, this.path)
    this.started = true
    link.inUseBy = this.request
    const abort = link.connection.unsafeStart(this, resume)
    if (this.link !== undefined) this.abort = abort
  }

  get onStatus(): ((status: number) => void) | undefined {
    const { span } = this
    return span === undefined ? undefined : (status) => span.status(status)
  }

  readonly onSettled = (error?: string): void => {
    this.span?.end(error)
    if (this.started) this.settle()
  }

  private settle(): void {
    const { link } = this
    if (link === undefined) return
    this.link = undefined
    this.abort = undefined
    link.inUseBy = undefined
    this.source.settle(link)
  }

  /** Whether the request can be started anew: its open connection turned out to be dead, and nothing of it was used. */
  canRestart(cause: Cause.Cause<unknown>): boolean {
    return this.wasOpen && this.request.body._tag !== "Raw" && isStale(cause)
  }

  /**
   * Interrupted, or failed. An exchange that still runs is aborted, and settles; a connection that broke its contract
   * and threw is given up; what was not used goes back.
   */
  readonly onFailure = (cause: Cause.Cause<E | RequestFailure>): Effect.Effect<never, E | RequestFailure> => {
    if (this.abort !== undefined) this.abort()
    else if (this.link !== undefined) {
      this.link.connection.unsafeRetire("Error")
      this.settle()
    } else this.wish?.withdraw()
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
export const execute = <L extends Link, E>(source: Source<L, E>, request: HttpClientRequest, path: string): Result<E> =>
  withFiber<HttpClientResponse, E | RequestFailure>((fiber, status) => {
    const run = new Run(source, request, path, fiber)
    const exchange = Effect.async(run.begin)
    const canBeInterrupted = isInterruptible(status)
    const onFailure = (cause: Cause.Cause<E | RequestFailure>): Result<E> => {
      const failed = run.onFailure(cause)
      if (!run.canRestart(cause)) return failed
      const again = execute(source, request, path)
      return canBeInterrupted ? Effect.interruptible(again) : again
    }
    return canBeInterrupted
      ? Effect.uninterruptible(Effect.catchAllCause(Effect.interruptible(exchange), onFailure))
      : Effect.catchAllCause(exchange, onFailure)
  })
