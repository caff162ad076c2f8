import * as Socket from "@effect/platform/Socket"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Scope from "effect/Scope"
import type { StreamConnection } from "../Connector.js"

/** A stream of bytes that is open, as a socket uses it. */
export type OpenStream = Pick<StreamConnection, "onEnded" | "stream" | "unsafeAbort">

// biome-ignore lint/suspicious/noConfusingVoidType: as the platform's sockets have it
type Handler<E, R> = (chunk: Uint8Array) => Effect.Effect<unknown, E, R> | void

/** How many bytes handlers may be busy with before the peer has to wait. */
const mostUnhandled = 64 * 1024

/** The error of a socket whose stream could not be opened, read or written. */
export const socketError = (reason: "Open" | "Read" | "Write", cause: unknown): Socket.SocketError =>
  new Socket.SocketGenericError({ reason, cause })

/** Ended before its peer had sent its last byte, by this side. */
const closedHere: Socket.SocketError = new Socket.SocketCloseError({ reason: "Close", code: 1000 })

/**
 * Reads a stream until the peer has sent its last byte and every handler has ended. Handlers run as those of the platform's
 * own sockets do: a fiber for each piece, begun in the order of the pieces. While they are busy with more than so many bytes,
 * no more is read.
 */
const readAll = <E, R>(
  open: OpenStream,
  handler: Handler<E, R>,
  onOpen: Effect.Effect<void> = Effect.void
): Effect.Effect<void, Socket.SocketError | E, R> =>
  Effect.scopedWith((scope) =>
    Effect.gen(function* () {
      const { stream } = open
      const fibers = yield* Scope.extend(FiberSet.make<unknown, E>(), scope)
      const run = yield* FiberSet.runtime(fibers)<R>()
      const read = yield* Deferred.make<void, Socket.SocketError | E>()
      let busyWith = 0
      let isPaused = false
      const onHandled = (exit: Exit.Exit<unknown, E>, bytes: number): void => {
        busyWith -= bytes
        if (Exit.isFailure(exit)) Deferred.unsafeDone(read, Effect.failCause(exit.cause))
        if (!isPaused || busyWith > mostUnhandled) return
        isPaused = false
        stream.resume()
      }
      const onData = (chunk: Uint8Array): void => {
        const handled = handler(chunk)
        if (!Effect.isEffect(handled)) return
        const bytes = chunk.byteLength
        busyWith += bytes
        run(handled).addObserver((exit) => onHandled(exit, bytes))
        if (isPaused || busyWith <= mostUnhandled) return
        isPaused = true
        stream.pause()
      }
      const onEnd = (): void => Deferred.unsafeDone(read, FiberSet.awaitEmpty(fibers))
      yield* Scope.addFinalizer(scope, Effect.sync(stream.read({ onData, onEnd })))
      open.onEnded((error) =>
        Deferred.unsafeDone(read, Effect.fail(error === undefined ? closedHere : socketError("Read", error)))
      )
      yield* onOpen
      yield* Deferred.await(read)
    })
  )

/** Writes to whatever stream is open; waits while none is. */
class Writing {
  readonly latch = Effect.unsafeMakeLatch(false)
  private current: OpenStream | undefined = undefined
  private isEnded = false
  private endedWith: unknown = undefined

  open(stream: OpenStream): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.current = stream
      this.isEnded = false
      this.endedWith = undefined
      stream.onEnded((error) => {
        if (this.current === stream) this.endedWith = error
      })
      return this.latch.open
    })
  }

  /** No stream is open until the next one. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.current = undefined
    return this.latch.close
  })

  readonly write = (chunk: Uint8Array | string | Socket.CloseEvent): Effect.Effect<void, Socket.SocketError> =>
    this.latch.whenOpen(
      Effect.async((resume) => {
        const { current } = this
        if (current === undefined) return resume(Effect.fail(closedHere))
        if (Socket.isCloseEvent(chunk)) {
          if (chunk.code > 1000) current.unsafeAbort()
          else this.end()
          return resume(Effect.void)
        }
        current.stream.write(chunk, (cause) =>
          resume(cause === undefined ? Effect.void : Effect.fail(socketError("Write", this.endedWith ?? cause)))
        )
      })
    )

  private end(): void {
    if (this.isEnded) return
    this.isEnded = true
    this.current?.stream.end(() => {})
  }

  /** The peer sees the end of this direction when the scope of the writer closes. */
  readonly writer: Socket.Socket["writer"] = Effect.acquireRelease(Effect.succeed(this.write), () =>
    Effect.sync(() => this.end())
  )
}

const make = (
  run: <E, R>(handler: Handler<E, R>, onOpen?: Effect.Effect<void>) => Effect.Effect<void, Socket.SocketError | E, R>,
  writer: Socket.Socket["writer"]
): Socket.Socket => {
  const of: Socket.Socket["run"] = (handler, options) => Effect.interruptible(run(handler, options?.onOpen))
  return { [Socket.TypeId]: Socket.TypeId, run: of, runRaw: of, writer }
}

/** A socket that opens a stream for each `run`, and ends it with it. */
export const fromOpening = (open: Effect.Effect<OpenStream, Socket.SocketError, Scope.Scope>): Socket.Socket => {
  const writing = new Writing()
  return make(
    (handler, onOpen) =>
      Effect.scopedWith((scope) =>
        Scope.extend(open, scope).pipe(
          Effect.tap((stream) => writing.open(stream)),
          Effect.flatMap((stream) => readAll(stream, handler, onOpen)),
          Effect.ensuring(writing.close)
        )
      ),
    writing.writer
  )
}

/** A socket over a stream that is open: it can be written to before it is read, and after the peer has sent its last byte. */
export const fromOpen = (stream: OpenStream): Effect.Effect<Socket.Socket> => {
  const writing = new Writing()
  return Effect.as(
    writing.open(stream),
    make((handler, onOpen) => readAll(stream, handler, onOpen), writing.writer)
  )
}
