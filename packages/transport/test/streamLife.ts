import type { Socket } from "@effect/platform"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, type Scope, TestClock } from "effect"
import { LifeRecord, limits, type Presented, type Side } from "./lifeSide.js"

/** A stream between us and a peer that sends nothing and does not read. */
export interface OpenedStream {
  /** Our end. */
  readonly socket: Socket.Socket
  /** The connection breaks. */
  readonly lose: Effect.Effect<unknown>
  /** Waits until it has ended at the peer too, which reads what is left. */
  readonly goneAtPeer: Effect.Effect<unknown>
}

/** One side of streams, made anew for each test; its connections last for no longer than `limits.age`. */
export interface StreamSide extends Pick<Side, "identity" | "end"> {
  /** Opens a stream to a peer, or has one open one to us. */
  readonly open: (
    presented: Extract<Presented, "Proper" | "ShortLived">
  ) => Effect.Effect<OpenedStream, unknown, Scope.Scope>
}

interface Ending {
  readonly when: string
  readonly presented: "Proper" | "ShortLived"
  readonly reason: string
  /** From the error of the one that reads it. */
  readonly told: string
  readonly end: (side: StreamSide, stream: OpenedStream) => Effect.Effect<unknown>
}

const endings: ReadonlyArray<Ending> = [
  {
    when: "a certificate on it expires",
    presented: "ShortLived",
    reason: "Expiry",
    told: "a certificate on it expires",
    end: () => TestClock.adjust("10 minutes")
  },
  {
    when: "it has reached its greatest age",
    presented: "Proper",
    reason: "Age",
    told: "it has reached the greatest age",
    end: () => TestClock.adjust(limits.age)
  },
  {
    when: "our own identity is withdrawn",
    presented: "Proper",
    reason: "Withdrawn",
    told: "our own identity was withdrawn",
    end: ({ identity }) => identity.withdraw
  },
  {
    when: "the authority of our own certificate is no longer in our bundle",
    presented: "Proper",
    reason: "Withdrawn",
    told: "our own identity was withdrawn",
    end: ({ identity }) => identity.replaceAuthority
  },
  {
    when: "the authority of its peer is distrusted",
    presented: "Proper",
    reason: "Distrust",
    told: "no longer holds the authority of the peer",
    end: ({ identity }) => identity.distrustPeers
  },
  {
    when: "the scope of its layer ends",
    presented: "Proper",
    reason: "Shutdown",
    told: "the scope it was supervised in has ended",
    end: ({ end }) => end
  },
  {
    when: "it breaks",
    presented: "Proper",
    reason: "Error",
    told: "the connection was lost",
    end: (_, { lose }) => lose
  }
]

/**
 * The end of a connection whose bytes are used as they are, the same on every side: while it is read and written it ends at
 * once, for a reason that is on record and in the error of its reader. `make` builds a side that puts its events on the record
 * it is given.
 */
export const streamLife = (make: (record: LifeRecord) => Effect.Effect<StreamSide, unknown, Scope.Scope>): void => {
  it.scoped.each(endings)("ends while it is read and written when $when", ({ end, presented, reason, told }) =>
    Effect.gen(function* () {
      const record = new LifeRecord()
      const side = yield* make(record)
      const stream = yield* side.open(presented)
      const write = yield* stream.socket.writer
      const reading = yield* Effect.fork(Effect.flip(stream.socket.run(() => {})))
      const writing = yield* Effect.fork(Effect.flip(Effect.forever(write(new Uint8Array(64 * 1024)))))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(record.tags, ["Attempted", "Established"])
      yield* end(side, stream)
      const error = yield* Fiber.join(reading)
      assert.strictEqual(error._tag, "SocketError")
      assert.deepInclude(error.cause, { _tag: "ConnectionError", reason: "Lost" })
      assert.include(String(error.cause), told)
      assert.strictEqual((yield* Fiber.join(writing))._tag, "SocketError")
      yield* record.until("Closed")
      assert.deepStrictEqual(record.tags, ["Attempted", "Established", `Closed ${reason}`])
      const late = yield* Effect.flip(write("late"))
      assert.strictEqual(late._tag, "SocketError")
      assert.deepInclude(late.cause, { _tag: "ConnectionError", reason: "Lost" })
      yield* stream.goneAtPeer
    })
  )
}
