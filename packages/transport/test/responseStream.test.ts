import { ConnectorResponse, TransportError } from "@agentweave/transport"
import { Headers, HttpClientRequest } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Chunk, Effect, Fiber, Stream } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"

/** A response over a wire whose turns the test takes. */
const setup = (defers = true) => {
  const tasks: Array<() => void> = []
  const wire = { resumed: 0, aborted: 0 }
  const sink = ConnectorResponse.makeSink({
    resume: () => void wire.resumed++,
    abort: () => void wire.aborted++,
    ...(defers ? { defer: (task: () => void) => void tasks.push(task) } : undefined)
  })
  const response = ConnectorResponse.makeResponse(sink, {
    request: HttpClientRequest.get("https://api.test/"),
    status: 200,
    headers: () => Headers.empty,
    setCookie: () => [],
    remoteAddress: undefined
  })
  const push = (text: string) => sink.push(new TextEncoder().encode(text))
  /** What the reader got, and in how many pieces. */
  const read: Array<string> = []
  const reading = Stream.runForEachChunk(response.stream, (chunk) =>
    Effect.sync(() =>
      read.push(
        Chunk.toReadonlyArray(chunk)
          .map((bytes) => Buffer.from(bytes).toString())
          .join("+")
      )
    )
  )
  const turn = Effect.suspend(() => {
    for (const task of tasks.splice(0)) task()
    return Effect.yieldNow()
  }).pipe(Effect.zipRight(Effect.yieldNow()))
  return { push, read, reading, response, sink, tasks, turn, wire }
}

it.effect("a reader that waits is woken once for all that comes in one turn of the wire", () =>
  Effect.gen(function* () {
    const { push, read, reading, sink, tasks, turn } = setup()
    const fiber = yield* Effect.fork(reading)
    yield* settled
    for (const text of ["a", "b", "c"]) expect(push(text)).toBe(true)
    expect(tasks).toHaveLength(1)
    yield* settled
    expect(read).toEqual([])
    yield* turn
    yield* settled
    expect(read).toEqual(["a+b+c"])
    push("d")
    sink.end()
    yield* Fiber.join(fiber)
    expect(read).toEqual(["a+b+c", "d"])
    // Nobody waits any more when the turn is over.
    yield* turn
    expect(read).toHaveLength(2)
  })
)

it.effect("without a wire that has turns it is woken for each piece", () =>
  Effect.gen(function* () {
    const { push, read, reading, sink } = setup(false)
    const fiber = yield* Effect.fork(reading)
    for (const text of ["a", "b"]) {
      yield* settled
      push(text)
    }
    yield* settled
    expect(read).toEqual(["a", "b"])
    sink.end()
    yield* Fiber.join(fiber)
  })
)

it.effect("what came before a failure is read, then the failure", () =>
  Effect.gen(function* () {
    const { push, read, reading, sink } = setup()
    const fiber = yield* Effect.fork(Effect.flip(reading))
    yield* settled
    push("a")
    const cause = new TransportError.ConnectionError({
      reason: "Lost",
      outcome: "Unknown",
      address: "127.0.0.1:1",
      description: "reset"
    })
    sink.fail(cause)
    expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "ResponseError", reason: "Decode", cause })
    expect(read).toEqual(["a"])
  })
)

it.effect("the wire is stopped when the reader is slow, and goes on when it reads", () =>
  Effect.gen(function* () {
    const { push, reading, sink, wire } = setup()
    expect(push("x".repeat(ConnectorResponse.highWaterMark - 1))).toBe(true)
    expect(push("x")).toBe(false)
    expect(wire.resumed).toBe(0)
    const fiber = yield* Effect.fork(reading)
    yield* settled
    expect(wire.resumed).toBe(1)
    expect(push("y")).toBe(true)
    sink.end()
    yield* Fiber.join(fiber)
    expect(wire.aborted).toBe(0)
  })
)

it.effect("interrupted while it waits: the rest is given up once, and what still comes does no harm", () =>
  Effect.gen(function* () {
    const { push, read, reading, turn, wire } = setup()
    const fiber = yield* Effect.fork(reading)
    yield* settled
    push("a")
    yield* Fiber.interrupt(fiber)
    yield* turn
    expect(push("b")).toBe(true)
    yield* turn
    expect([read, wire.aborted]).toEqual([[], 1])
  })
)

it.effect("a body is a stream once", () =>
  Effect.gen(function* () {
    const { push, read, reading, response, sink } = setup()
    push("a")
    sink.end()
    yield* reading
    expect(yield* Effect.flip(Stream.runDrain(response.stream))).toMatchObject({ _tag: "ResponseError" })
    expect(read).toEqual(["a"])
  })
)

it.effect("a body that was read as a stream is not there a second time", () =>
  Effect.gen(function* () {
    const { push, read, reading, response, sink } = setup()
    push("a")
    sink.end()
    yield* reading
    expect(read).toEqual(["a"])
    for (const again of [response.text, Stream.runDrain(response.stream)]) {
      const error = yield* Effect.flip(again)
      expect(error).toMatchObject({ _tag: "ResponseError", reason: "Decode" })
      expect(error.message).toContain("already read as a stream")
    }
  })
)

it.effect("a body that was read as a whole can be read again, in any form", () =>
  Effect.gen(function* () {
    const { push, read, reading, response, sink } = setup()
    push('{"a":')
    push("1}")
    sink.end()
    expect(yield* response.json).toEqual({ a: 1 })
    expect(yield* response.text).toBe('{"a":1}')
    yield* reading
    expect(read).toEqual(['{"a":1}'])
  })
)
