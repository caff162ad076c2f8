import { IdentityError, IdentityProblem, IdentityProvider, PeerVerificationError } from "@agentweave/spiffe"
import { TestIdentity } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, IdentityMonitor } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, TestClock } from "effect"
import { type Answer, answer, document, down, federate, minted, Web } from "./federatedProvider.js"

describe("federated bundles: what cannot be fetched", () => {
  it.scoped("attempts for a first bundle grow apart, up to the refresh interval", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const pages = new Web(down)
      const { events, generation } = yield* federate(pages)
      yield* TestClock.adjust("30 minutes")
      assert.deepStrictEqual(
        events.slice(0, 9).map(({ nextInMillis }) => nextInMillis / 1000),
        [5, 10, 20, 40, 80, 160, 300, 300, 300]
      )
      assert.strictEqual(yield* generation, "none")
      pages.set(answer(document(first)))
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(yield* generation, first.generation)
    })
  )

  it.scoped("the delays of failed attempts are jittered over their second half", () =>
    Effect.gen(function* () {
      const { events } = yield* federate(new Web(down), { random: 0.5 })
      assert.strictEqual(events[0]?.nextInMillis, 3_750)
    })
  )

  it.scoped("a refresh that fails keeps the bundle and waits for the next, never longer than its interval", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const pages = new Web(answer(document(first, { refreshHint: "10 minutes" })))
      const { events, generation } = yield* federate(pages)
      pages.set(down)
      yield* TestClock.adjust("50 minutes")
      assert.deepStrictEqual(
        events.slice(1).map((event) => [event._tag, event.nextInMillis / 60_000]),
        Array.from({ length: 5 }, () => ["BundleFetchFailed", 10])
      )
      assert.deepInclude(events[5], { failures: 5 })
      assert.strictEqual(yield* generation, first.generation)
      pages.set(answer(document(first, { refreshHint: "10 minutes" })))
      yield* TestClock.adjust("10 minutes")
      pages.set(down)
      yield* TestClock.adjust("10 minutes")
      assert.deepInclude(events[7], { failures: 1 })
    })
  )

  it.scoped("each failure is typed, keeps the bundle, and says what was expected", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const pages = new Web(answer(document(first)))
      const { failures, generation } = yield* federate(pages)
      const whole = document(first)
      const cases: ReadonlyArray<readonly [Answer, RegExp]> = [
        [down, /^Unreachable: expected an answer, got: Transport error .*: connect ECONNREFUSED$/],
        [Effect.dieMessage("a broken client"), /^Unreachable: .*a broken client/],
        [
          Effect.fail(
            new PeerVerificationError.PeerVerificationError({
              expectedId: "spiffe://partner.example/bundles",
              actualId: null,
              reason: "UntrustedChain",
              description: "no path"
            })
          ),
          /^Unauthenticated: .*UntrustedChain/
        ],
        [
          Effect.fail(new Error("x", { cause: Object.assign(new Error("y"), { code: "CERT_HAS_EXPIRED" }) })),
          /^Unauthenticated: .*x: y$/
        ],
        [answer("", { status: 404 }), /^Status: expected status 200, got 404$/],
        [answer("", { status: 206 }), /^Status: .*206/],
        [answer(whole.slice(0, -9)), /^Malformed: .*expected JSON/],
        [answer("<html>"), /^Malformed: .*expected JSON/],
        [answer(`{"keys": [{"kty":"EC","use":"x509-svid","x5c":["AAAA"]}]}`), /^Malformed: .*keys\[0\]: x5c\[0\]: /],
        [Effect.sync(() => new Response(Uint8Array.of(0x7b, 0xff, 0x7d))), /^Malformed: expected UTF-8/],
        [answer(`${whole}${" ".repeat(100_000)}`), /^TooLarge: expected at most 100000 bytes/]
      ]
      for (const [index, [next, expected]] of cases.entries()) {
        pages.set(next)
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(failures().length, index + 1, String(expected))
        assert.match(failures()[index] ?? "", expected)
        assert.strictEqual(yield* generation, first.generation)
      }
    })
  )

  it.scoped("a document of exactly the limit is read", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const whole = document(first)
      const { failures } = yield* federate(new Web(answer(whole.padEnd(100_000, " "))))
      assert.deepStrictEqual(failures(), [])
    })
  )

  it.scoped("an endless answer is cut off at the limit, a silent one at the timeout", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      let pulled = 0
      const endless = Effect.sync(
        () =>
          new Response(
            new ReadableStream({
              pull(controller) {
                pulled++
                controller.enqueue(new Uint8Array(10_000).fill(0x20))
              }
            })
          )
      )
      const pages = new Web(endless)
      const { failures } = yield* federate(pages)
      assert.match(failures()[0] ?? "", /^TooLarge/)
      assert.isBelow(pulled, 20)
      const interrupted = yield* Deferred.make<void>()
      pages.set(Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined)))
      yield* TestClock.adjust("5 seconds")
      yield* TestClock.adjust("29999 millis")
      assert.strictEqual(failures().length, 1)
      yield* TestClock.adjust("1 millis")
      assert.match(failures()[1] ?? "", /^Timeout: expected an answer within 30s/)
      yield* Deferred.await(interrupted)
      pages.set(answer(document(first)))
    })
  )

  it.scoped("the layer does not wait longer than asked for an endpoint that is silent", () =>
    Effect.gen(function* () {
      const { context } = yield* minted
      const pages = new Web(Effect.never)
      const building = yield* Effect.fork(federate(pages))
      yield* TestClock.adjust("4999 millis")
      assert.isNull(yield* Fiber.poll(building).pipe(Effect.map((exit) => (exit._tag === "None" ? null : exit))))
      yield* TestClock.adjust("1 millis")
      const { provider } = yield* Fiber.join(building)
      assert.strictEqual(yield* provider.x509Context, context)
    })
  )
})

describe("federated bundles: what goes wrong is in the audit log by itself", () => {
  const audit = Effect.fnUntraced(function* (...providers: ReadonlyArray<IdentityProvider.IdentityProvider["Type"]>) {
    const events: Array<AuditEvent.AuditEvent> = []
    const log = yield* Layer.build(AuditLog.layerMemory(events))
    for (const provider of providers) {
      yield* IdentityMonitor.make({ interval: "1 day" }).pipe(
        Effect.provideService(IdentityProvider.IdentityProvider, provider),
        Effect.provide(log)
      )
    }
    yield* TestClock.adjust(0)
    return () =>
      events.flatMap((event) =>
        // Time alone makes the SVID overdue.
        event._tag === "IdentityProblem" && event.reason !== undefined
          ? [`${event.problem} ${event.reason}: ${event.description}`]
          : []
      )
  })

  it.scoped("once while it lasts, also what happened while the layer was built, and the last good bundle stays", () =>
    Effect.gen(function* () {
      const { first, second } = yield* minted
      const pages = new Web(down)
      const { generation, provider } = yield* federate(pages)
      const problems = yield* audit(provider)
      yield* TestClock.adjust("1 hour")
      assert.lengthOf(problems(), 1)
      assert.match(
        problems()[0] ?? "",
        /^Unavailable Unreachable: bundle of partner.example at https:\/\/bundles.partner.example\/bundle.json: .*ECONNREFUSED/
      )
      pages.set(answer(document(first, { sequence: 2n })))
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(yield* generation, first.generation)
      const spoil: ReadonlyArray<readonly [Answer, RegExp]> = [
        [answer("garbage"), /^Discarded Malformed: /],
        [answer(document(second, { sequence: 1n })), /^Discarded SequenceRegressed: .*expected a sequence number/],
        [answer("", { status: 503 }), /^Unavailable Status: .*503/],
        [down, /^Unavailable Unreachable: /]
      ]
      for (const [index, [page, expected]] of spoil.entries()) {
        pages.set(page)
        yield* TestClock.adjust("15 minutes")
        assert.lengthOf(problems(), index + 2)
        assert.match(problems()[index + 1] ?? "", expected)
        assert.strictEqual(yield* generation, first.generation)
      }
      pages.set(answer(document(first, { sequence: 2n })))
      yield* TestClock.adjust("5 minutes")
      pages.set(down)
      yield* TestClock.adjust("15 minutes")
      assert.lengthOf(problems(), 6)
    })
  )

  it.scoped("with the problems of the identity below it, once though both are watched", () =>
    Effect.gen(function* () {
      const { context, first } = yield* minted
      const identity = yield* TestIdentity.make(context)
      const { problems: told, report } = yield* IdentityProblem.makeReporter
      const below = { ...identity.provider, problems: told }
      const { provider } = yield* federate(new Web(answer(document(first))), {
        identity: { ...identity, provider: below }
      })
      const problems = yield* audit(provider, below)
      yield* report({ kind: "Withdrawn", reason: "Withdrawn", description: "no identity issued" })
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(problems(), ["Withdrawn Withdrawn: no identity issued"])
    })
  )

  it.scoped("with the losses of one that tells none", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const { identity, provider } = yield* federate(new Web(answer(document(first))))
      const problems = yield* audit(provider)
      yield* identity.fail(new IdentityError.IdentityError({ reason: "Withdrawn", description: "no identity issued" }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(problems(), ["Withdrawn Withdrawn: no identity issued"])
    })
  )
})
