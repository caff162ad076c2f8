import { DevAuthority } from "@agentweave/testkit"
import type { WorkloadApiEvent } from "@agentweave/workload-api"
import { WorkloadApi } from "@agentweave/workload-api"
import { expect, it } from "@effect/vitest"
import { Clock, Duration, Effect, Either, Fiber, Mailbox, Stream, TestClock } from "effect"
import { quicken } from "../../spiffe/test/support/quickTestClock.js"
import * as provider from "../src/internal/provider.js"
import type { Delivered } from "../src/internal/updateReader.js"

const hour = 3_600_000
const rotations = 365 * 24

/** The state and its timers without certificates: an update is what it delivers. */
const makeProvider = Effect.gen(function* () {
  const messages = yield* Mailbox.make<Delivered>()
  const events: Array<WorkloadApiEvent.WorkloadApiEvent["_tag"]> = []
  const made = yield* provider.make({
    messages: Mailbox.toStream(messages),
    read: (delivered: Delivered) => Either.right(delivered),
    select: undefined,
    initialTimeout: Duration.seconds(30),
    responseTimeout: Duration.seconds(30),
    reconnectSchedule: WorkloadApi.reconnectSchedule,
    hurriesWithoutIdentity: true,
    onEvent: ({ _tag }) => Effect.sync(() => events.push(_tag))
  })
  return { ...made, events, push: (delivered: Delivered) => messages.offer(delivered) }
})

it.scoped(
  "a year of hourly rotations: each is served at once, and the identity is the agent never anything but healthy",
  () =>
    Effect.gen(function* () {
      yield* quicken
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const { bundles, svid } = yield* authority.context()
      const { changes, events, agentHealth, push, x509Context } = yield* makeProvider

      const agent = Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const next = { ...svid, fingerprint: `${now}`, notBefore: now - 60_000, notAfter: now + 2 * hour }
        yield* push({ svids: [next], bundles, refusedBundles: [] })
        yield* Effect.sleep(hour)
      })
      let rotation = 0
      const faults: Array<string> = []
      const application = Stream.runForEach(changes, ({ svid: { fingerprint } }) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          const current = yield* x509Context
          const state = yield* agentHealth
          const expected = `${rotation++ * hour}`
          if (
            fingerprint !== expected ||
            `${now}` !== expected ||
            current.svid.fingerprint !== expected ||
            state !== "Healthy"
          ) {
            faults.push(`at ${now}, expected ${expected}: ${fingerprint}, ${current.svid.fingerprint}, ${state}`)
          }
        })
      )
      yield* Effect.fork(application)
      const rotating = yield* Effect.fork(Effect.repeatN(agent, rotations - 1))
      yield* TestClock.adjust(rotations * hour)
      yield* Fiber.join(rotating)

      expect(rotation).toBe(rotations)
      expect(faults).toStrictEqual([])
      expect(events.length).toBe(rotations)
      expect(new Set(events)).toStrictEqual(new Set(["Updated"]))
      // The year is over, and the last SVID lives its second hour.
      yield* TestClock.adjust(hour)
      expect(yield* agentHealth).toBe("Healthy")
      yield* TestClock.adjust(1)
      expect(yield* agentHealth).toBe("Degraded")
    })
)
