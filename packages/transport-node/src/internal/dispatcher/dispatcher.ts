import { isTransportError, ScopeClosedError } from "@agentweave/transport/TransportError"
import * as Cookies from "@effect/platform/Cookies"
import type { HttpClient } from "@effect/platform/HttpClient"
import { isHttpClientError } from "@effect/platform/HttpClientError"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { RuntimeFiber } from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Stream from "effect/Stream"
import { Dispatcher } from "undici"
import { toClientRequest } from "./dispatchedRequest.js"
import { DispatchedHandler, type RawHeaders } from "./handler.js"

export type RunFork = (effect: Effect.Effect<void, unknown>) => RuntimeFiber<void, unknown>

const headersOf = (response: HttpClientResponse): RawHeaders => [
  ...Object.entries(response.headers).filter(([name]) => name !== "set-cookie"),
  ...Cookies.toSetCookieHeaders(response.cookies).map((value) => ["set-cookie", value] as const)
]

/** The error for a caller of `fetch`: the typed one, also where an `HttpClientError` has it as its cause. */
const errorOf = (cause: Cause.Cause<unknown>, target: string): Error => {
  if (Cause.isInterruptedOnly(cause)) return new ScopeClosedError({ reason: "Adapter", target })
  const error = Cause.squash(cause)
  if (isHttpClientError(error) && isTransportError(error.cause)) return error.cause
  return error instanceof Error ? error : new Error("expected a response, the request failed", { cause: error })
}

/** The longest body that is handed on as a whole: a `Stream` costs more than all the rest of so small a response. */
const wholeBytes = 65_536

/** Whether a response states a length, and a short one. */
const isShort = ({ headers }: HttpClientResponse): boolean => {
  const length = headers["content-length"]
  return length !== undefined && Number(length) <= wholeBytes
}

/** Completes when the handler takes more. */
const whenReady = ({ controller }: DispatchedHandler): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    if (!controller.paused) return resume(Effect.void)
    controller.onResume = () => resume(Effect.void)
  })

/** Requests of undici, and of Node's `fetch`, by an `HttpClient`. */
export class ClientDispatcher<E> extends Dispatcher {
  private readonly client: HttpClient.With<E>
  private readonly runFork: RunFork

  constructor(client: HttpClient.With<E>, runFork: RunFork) {
    super()
    this.client = client
    this.runFork = runFork
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const handled: DispatchedHandler = new DispatchedHandler(handler, () => fiber.unsafeInterruptAsFork(FiberId.none))
    const fiber = this.runFork(Effect.interruptible(this.exchange(options, handled)))
    fiber.addObserver((exit) => {
      if (Exit.isSuccess(exit)) handled.end()
      else handled.fail(handled.controller.reason ?? errorOf(exit.cause, `at ${options.origin ?? "an unnamed origin"}`))
    })
    return true
  }

  private exchange(options: Dispatcher.DispatchOptions, handler: DispatchedHandler): Effect.Effect<void, unknown> {
    return Effect.gen(this, function* () {
      // After `dispatch` has returned: a handler may abort at once, and is to be told of it.
      yield* Effect.yieldNow()
      handler.start()
      const request = yield* toClientRequest(options)
      const response = yield* this.client.execute(request)
      handler.head(response.status, headersOf(response))
      yield* whenReady(handler)
      yield* isShort(response) ? this.whole(response, handler) : this.streamed(response, handler)
    }).pipe(Effect.scoped)
  }

  private whole(response: HttpClientResponse, handler: DispatchedHandler): Effect.Effect<void, unknown> {
    return Effect.flatMap(response.arrayBuffer, (body) => {
      if (body.byteLength > 0) handler.data(new Uint8Array(body))
      return whenReady(handler)
    })
  }

  private streamed(response: HttpClientResponse, handler: DispatchedHandler): Effect.Effect<void, unknown> {
    return Stream.runForEach(response.stream, (chunk) => {
      handler.data(chunk)
      return whenReady(handler)
    })
  }

  /** Its requests end with the scope it was made in; to be closed by a library, which may not be its only user, is nothing. */
  override close(): Promise<void>
  override close(callback: () => void): void
  override close(callback?: () => void): Promise<void> | undefined {
    return settle(callback)
  }

  override destroy(error?: Error | null): Promise<void>
  override destroy(callback: () => void): void
  override destroy(error: Error | null, callback: () => void): void
  override destroy(first?: Error | null | (() => void), second?: () => void): Promise<void> | undefined {
    return settle(typeof first === "function" ? first : second)
  }
}

const settle = (callback: (() => void) | undefined): Promise<void> | undefined => {
  if (callback === undefined) return Promise.resolve()
  queueMicrotask(callback)
  return undefined
}
