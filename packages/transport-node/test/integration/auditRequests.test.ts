/** How a request is on record: once, unless its start must be there first. */
import { readFileSync } from "node:fs"
import type { AuditEvent } from "@agentweave/transport"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { problemsOf } from "../auditReports.js"
import { ended, refused, started } from "./auditEvents.js"
import { eventsOf, read, until, world } from "./auditWorld.js"

/** The events of requests in a text, as tag and number. */
const requestsIn = (text: string): ReadonlyArray<string> =>
  eventsOf(text).flatMap((event) =>
    event._tag === "RequestStarted" || event._tag === "RequestEnded"
      ? [`${event._tag.replace("Request", "")} ${event.requestId}`]
      : []
  )

it.scoped("a request that ends within the flush window is one record of less than 350 bytes", () =>
  Effect.gen(function* () {
    const { open, path } = yield* world
    const { close, log } = yield* open()
    for (let n = 0; n < 1_000; n++) {
      log.unsafeRecord(started(n))
      log.unsafeRecord(ended(n))
    }
    yield* close
    const text = readFileSync(path, "utf8")
    expect(requestsIn(text)).toEqual(Array.from({ length: 1_000 }, (_, n) => `Ended r${n}`))
    expect(text.length / 1_000).toBeLessThan(350)
    expect(problemsOf(text)).toEqual([])
  })
)

it.scoped("a request that is still open when a flush window ends has its start on record then, and its end later", () =>
  Effect.gen(function* () {
    const { open, path } = yield* world
    const { close, log } = yield* open()
    log.unsafeRecord(started(1))
    log.unsafeRecord(started(2))
    log.unsafeRecord(ended(2))
    yield* until(() => requestsIn(read(path)).length === 2)
    // By ends, and what is open behind them.
    expect(requestsIn(read(path))).toEqual(["Ended r2", "Started r1"])
    log.unsafeRecord(started(3))
    log.unsafeRecord(ended(1))
    log.unsafeRecord(ended(3))
    yield* close
    expect(requestsIn(read(path))).toEqual(["Ended r2", "Started r1", "Ended r1", "Ended r3"])
  })
)

it.scoped("a request that is open when the log closes has its start on record", () =>
  Effect.gen(function* () {
    const { open, path } = yield* world
    const { close, log } = yield* open()
    log.unsafeRecord(started(1))
    yield* close
    expect(requestsIn(read(path))).toEqual(["Started r1"])
  })
)

it.scoped("where requests fail closed the start is on record before the end comes", () =>
  Effect.gen(function* () {
    const { open, path } = yield* world
    const { close, log } = yield* open({ whenFullOfRequests: "FailClosed", maxPending: 3 })
    for (const n of [1, 2]) log.unsafeRecord(started(n))
    log.unsafeRecord(ended(1))
    // A request that cannot be put on record does not begin.
    expect(log.unsafeRecord(started(3))).toMatchObject({ _tag: "AuditError", reason: "Full" })
    yield* close
    expect(requestsIn(read(path))).toEqual(["Started r1", "Started r2", "Ended r1"])
  })
)

it.scoped("a start that is held takes the room of a record, which its end takes over", () =>
  Effect.gen(function* () {
    const { open, path } = yield* world
    const { close, log } = yield* open({ maxPending: 2 })
    log.unsafeRecord(started(1))
    log.unsafeRecord(started(2))
    expect(log.unsafeRecord(refused(1))).toMatchObject({ reason: "Full" })
    yield* close
    expect(requestsIn(read(path))).toEqual(["Started r1", "Started r2"])
  })
)

it.scoped("events of any size and number are on record once, in their order", () =>
  Effect.gen(function* () {
    const { open, path } = yield* world
    const { close, log } = yield* open()
    const long = (n: number): AuditEvent.AuditEvent => ({
      _tag: "LeaseLeaked",
      time: n,
      targetId: "spiffe://example.org/api",
      heldMillis: n,
      origin: `é${"x".repeat((n * 37) % 3_000)}\u2028"`
    })
    for (let n = 0; n < 3_000; n++) log.unsafeRecord(long(n))
    yield* close
    const text = readFileSync(path, "utf8")
    expect(eventsOf(text)).toEqual(Array.from({ length: 3_000 }, (_, n) => long(n)))
    expect(problemsOf(text)).toEqual([])
  })
)
