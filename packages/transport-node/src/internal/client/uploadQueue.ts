import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import type * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import type { RuntimeFiber } from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import { runtimeOf } from "../fiber.js"

/**
 * Bytes read ahead of what the socket takes, at the most: the source and the socket work at the same time. The stream is read on
 * when half of them are left, and so not for each piece anew.
 */
const readAhead = 256 * 1024
const readOnBelow = readAhead / 2

type Result = IteratorResult<Uint8Array>

/**
 * The pieces of a body stream, as an iterator that reads a little ahead. `Stream.toAsyncIterableRuntime` takes a latch and a
 * fiber's turn for each piece, and with it twice the CPU for 1 MiB (`npm run bench -- stream` measures uploads).
 */
export class UploadQueue {
  private readonly stream: Stream.Stream<Uint8Array, unknown>
  private readonly requester: RuntimeFiber<unknown, unknown>
  private readonly onFailure: (cause: unknown) => void
  private pieces: Array<Uint8Array> = []
  private size = 0
  private reader: RuntimeFiber<void, unknown> | undefined = undefined
  private end: Exit.Exit<void, unknown> | undefined = undefined
  /** Goes on reading the stream. */
  private readOn: (() => void) | undefined = undefined
  private waiter:
    | { readonly resolve: (result: Result) => void; readonly reject: (cause: unknown) => void }
    | undefined = undefined

  /**
   * @param requester The fiber of the request: the stream runs in its context.
   * @param onFailure Told of the stream's failure as soon as it fails, whatever is still to be taken.
   */
  constructor(
    stream: Stream.Stream<Uint8Array, unknown>,
    requester: RuntimeFiber<unknown, unknown>,
    onFailure: (cause: unknown) => void
  ) {
    this.stream = stream
    this.requester = requester
    this.onFailure = onFailure
  }

  /** Whether a piece is asked for and not there. */
  get isWaiting(): boolean {
    return this.waiter !== undefined
  }

  readonly next = (): Promise<Result> => {
    this.reader ??= this.read()
    return new Promise((resolve, reject) => {
      this.waiter = { resolve, reject }
      this.serve()
    })
  }

  /** Nobody takes more: the stream is interrupted. */
  readonly cancel = (): void => {
    this.reader?.unsafeInterruptAsFork(FiberId.none)
  }

  private read(): RuntimeFiber<void, unknown> {
    // Not `Stream.toPull`: the end would be a failure, and each piece three more steps.
    const all = Effect.scoped(
      Effect.flatMap(Channel.toPull(Stream.toChannel(this.stream)), (pull) => {
        const loop: Effect.Effect<void, unknown> = Effect.flatMap(pull, (pulled) => {
          if (Either.isLeft(pulled)) return Effect.void
          this.take(pulled.right)
          return this.size < readAhead ? loop : Effect.flatMap(this.room, () => loop)
        })
        return loop
      })
    )
    const fiber = Runtime.runFork(runtimeOf(this.requester))(all)
    fiber.addObserver((exit) => {
      this.end = exit
      if (Exit.isFailure(exit)) this.onFailure(Cause.squash(exit.cause))
      this.serve()
    })
    return fiber
  }

  private take(chunk: Chunk.Chunk<Uint8Array>): void {
    for (const piece of chunk) {
      this.pieces.push(piece)
      this.size += piece.length
    }
    this.serve()
  }

  private readonly room = Effect.async<void>((resume) => {
    // A waiter may have taken what was there.
    if (this.size < readOnBelow) resume(Effect.void)
    else this.readOn = () => resume(Effect.void)
  })

  private serve(): void {
    const { waiter } = this
    if (waiter === undefined) return
    const piece = this.pieces.shift()
    if (piece !== undefined) {
      this.waiter = undefined
      this.size -= piece.length
      waiter.resolve({ done: false, value: piece })
      this.goOn()
      return
    }
    if (this.end === undefined) return
    this.waiter = undefined
    if (Exit.isSuccess(this.end)) waiter.resolve({ done: true, value: undefined })
    else waiter.reject(Cause.squash(this.end.cause))
  }

  private goOn(): void {
    const { readOn } = this
    if (readOn === undefined || this.size >= readOnBelow) return
    this.readOn = undefined
    readOn()
  }
}
