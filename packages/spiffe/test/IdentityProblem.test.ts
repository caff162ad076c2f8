import { IdentityError, IdentityProblem, IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority, TestIdentity } from "@agentweave/testkit"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Exit, Scope, Stream, TestClock } from "effect"
import { settled } from "./support/settled.js"

const context = Effect.flatMap(DevAuthority.make({ trustDomain: "example.org" }), (authority) => authority.context())

const garbage = (n: number) => ({ kind: "Discarded", reason: "Malformed", description: `garbage ${n}` }) as const

/** Collects what a stream emits, for as long as the test lasts. */
const collect = <A>(stream: Stream.Stream<A>) =>
  Effect.gen(function* () {
    const seen: Array<A> = []
    const fiber = yield* Effect.forkScoped(Stream.runForEach(stream, (one) => Effect.sync(() => seen.push(one))))
    yield* TestClock.adjust(0)
    return { seen, fiber }
  })

describe("a reporter of problems", () => {
  it.scoped("keeps those that came before anybody listened, with their times, and tells everybody each one once", () =>
    Effect.gen(function* () {
      const { problems, report } = yield* IdentityProblem.makeReporter
      yield* report(garbage(1))
      yield* TestClock.adjust(5)
      const one = yield* collect(problems)
      yield* report(garbage(2))
      const other = yield* collect(problems)
      yield* report(garbage(3))
      yield* TestClock.adjust(0)
      const all = [1, 2, 3].map((n) => ({ ...garbage(n), time: n === 1 ? 0 : 5 }))
      expect(one.seen).toEqual(all)
      expect(other.seen).toEqual(all)
    })
  )

  it.scoped("never waits for those who listen: who falls behind loses the oldest", () =>
    Effect.gen(function* () {
      const { problems, report } = yield* IdentityProblem.makeReporter
      const slow = yield* Effect.forkScoped(Stream.runForEach(problems, () => Effect.never))
      yield* TestClock.adjust(0)
      for (let n = 0; n < 1_000; n++) yield* report(garbage(n))
      expect(slow.unsafePoll()).toBeNull()
      const { seen } = yield* collect(problems)
      expect(seen.map(({ description }) => description)).toEqual(
        Array.from({ length: 64 }, (_, n) => `garbage ${936 + n}`)
      )
    })
  )

  it.scoped("ends with its scope", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { problems } = yield* Scope.extend(IdentityProblem.makeReporter, scope)
      const { fiber } = yield* collect(problems)
      const late = yield* Effect.forkScoped(
        Stream.runCollect(Stream.take(Stream.concat(problems, Stream.make("ended")), 1))
      )
      yield* settled
      expect([fiber.unsafePoll(), late.unsafePoll()]).toEqual([null, null])
      yield* Scope.close(scope, Exit.void)
      yield* settled
      expect(fiber.unsafePoll()).toEqual(Exit.void)
      expect(late.unsafePoll()).toEqual(Exit.succeed(Chunk.of("ended")))
    })
  )
})

describe("the problems of a provider that does not tell them", () => {
  const lost = (reason: IdentityError.IdentityErrorReason) =>
    new IdentityError.IdentityError({ reason, description: "a test took it" })

  it.scoped("are the failures of its changes, each once until it is back", () =>
    Effect.gen(function* () {
      const { fail, provider, set } = yield* TestIdentity.make()
      const { seen } = yield* collect(IdentityProvider.problems(provider))
      const kinds = () => seen.map(({ kind, reason }) => `${kind} ${reason}`)
      yield* TestClock.adjust("2 seconds")
      expect(kinds()).toEqual(["Unavailable Unavailable"])
      yield* fail(lost("Withdrawn"))
      yield* TestClock.adjust("2 seconds")
      yield* fail(lost("InvalidSvid"))
      yield* TestClock.adjust("2 seconds")
      yield* fail(lost("Expired"))
      yield* TestClock.adjust("2 seconds")
      expect(kinds().slice(1)).toEqual(["Withdrawn Withdrawn", "Discarded InvalidSvid", "Expired Expired"])
      expect(seen[1]).toEqual({ time: 2_250, kind: "Withdrawn", reason: "Withdrawn", description: "a test took it" })
      yield* set(yield* context)
      yield* TestClock.adjust("250 millis")
      yield* fail(lost("Expired"))
      yield* TestClock.adjust("2 seconds")
      expect(kinds().slice(4)).toEqual(["Expired Expired"])
    })
  )

  it.effect("end with its changes", () =>
    Effect.gen(function* () {
      const problems = IdentityProvider.problems({ x509Context: Effect.never, changes: Stream.empty })
      const reader = yield* Effect.fork(Stream.runDrain(problems))
      yield* settled
      expect(reader.unsafePoll()).toEqual(Exit.void)
    })
  )
})
