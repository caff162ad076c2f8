import type { X509Context } from "@agentweave/spiffe"
import { assert, describe, it } from "@effect/vitest"
import { Chunk, Duration, Effect, Fiber, Queue, Stream, TestClock } from "effect"
import { type Answer, answer, document, federate, minted, partner, url, Web, web } from "./federatedProvider.js"

const empty = `{"keys": []}`

const redirect = (location: string, status = 302): Answer => answer("", { status, headers: { location } })

describe("federated bundles", () => {
  it.scoped("the first fetch is there when the layer is, beside the own bundle", () =>
    Effect.gen(function* () {
      const { context, first, own } = yield* minted
      const { events, provider } = yield* federate(new Web(answer(document(first, { sequence: 7n }))))
      const { bundles, svid } = yield* provider.x509Context
      assert.strictEqual(svid, context.svid)
      assert.deepStrictEqual(
        Array.from(bundles.bundles, ([domain, bundle]) => [domain, bundle.generation]),
        [
          ["example.org", own.bundle.generation],
          ["partner.example", first.generation]
        ]
      )
      assert.deepStrictEqual(events, [
        {
          _tag: "BundleFetched",
          trustDomain: "partner.example",
          url,
          nextInMillis: 300_000,
          changed: true,
          sequence: "7",
          generation: first.generation,
          authorities: 1
        }
      ])
    })
  )

  it.scoped("a bundle is fetched again after its refresh hint, within bounds, and after five minutes without", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const hints: ReadonlyArray<readonly [Duration.DurationInput | undefined, number]> = [
        [undefined, 300],
        ["10 minutes", 600],
        ["0 seconds", 60],
        ["10 seconds", 60],
        ["28 days", 3600]
      ]
      for (const [refreshHint, seconds] of hints) {
        const pages = new Web(answer(document(first, refreshHint === undefined ? {} : { refreshHint })))
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* federate(pages)
            yield* TestClock.adjust(Duration.millis(seconds * 1000 - 1))
            assert.strictEqual(pages.asked.length, 1)
            yield* TestClock.adjust("1 millis")
            assert.strictEqual(pages.asked.length, 2)
          })
        )
      }
    })
  )

  it.scoped("refreshes are spread over the last tenth of the interval", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const { events } = yield* federate(new Web(answer(document(first))), { random: 0.5 })
      assert.strictEqual(events[0]?.nextInMillis, 285_000)
    })
  )

  it.scoped("an update is a new snapshot; the same content again is none", () =>
    Effect.gen(function* () {
      const { context, first, second } = yield* minted
      const pages = new Web(answer(document(first)))
      const { events, identity, provider } = yield* federate(pages)
      const emitted = yield* Queue.unbounded<X509Context.X509Context>()
      yield* Effect.forkScoped(Stream.runForEach(provider.changes, (next) => Queue.offer(emitted, next)))
      yield* TestClock.adjust("5 minutes")
      const before = yield* provider.x509Context
      assert.strictEqual(yield* provider.x509Context, before)
      pages.set(answer(document(second)))
      yield* TestClock.adjust("5 minutes")
      yield* identity.set({ ...context })
      yield* TestClock.adjust(0)
      const seen = Chunk.toReadonlyArray(yield* Queue.takeAll(emitted))
      assert.deepStrictEqual(
        seen.map(({ bundles }) => bundles.bundles.get(partner)?.generation),
        [first.generation, second.generation, second.generation]
      )
      assert.strictEqual(seen[0], before)
      assert.deepStrictEqual(
        events.map((event) => event._tag === "BundleFetched" && event.changed),
        [true, false, true]
      )
    })
  )

  it.scoped("changes ends with the layer", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const fiber = yield* Effect.scoped(
        Effect.gen(function* () {
          const { provider } = yield* federate(new Web(answer(document(first))))
          const fiber = yield* Effect.forkDaemon(Stream.runCollect(provider.changes))
          yield* TestClock.adjust(0)
          return fiber
        })
      )
      assert.strictEqual(Chunk.size(yield* Fiber.join(fiber)), 1)
    })
  )

  it.scoped("nothing is asked after the layer has ended", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const pages = new Web(answer(document(first)))
      yield* Effect.scoped(federate(pages))
      yield* TestClock.adjust("1 day")
      assert.strictEqual(pages.asked.length, 1)
    })
  )
})

describe("federated bundles: order and redirects", () => {
  it.scoped("a sequence number never goes back, not even by way of a document without one", () =>
    Effect.gen(function* () {
      const { first, second } = yield* minted
      const pages = new Web(answer(document(first, { sequence: 18446744073709551615n })))
      const { failures, generation } = yield* federate(pages)
      const next = Effect.fnUntraced(function* (text: string) {
        pages.set(answer(text))
        yield* TestClock.adjust("5 minutes")
        return yield* generation
      })
      assert.strictEqual(yield* next(document(second, { sequence: 18446744073709551614n })), first.generation)
      assert.match(failures()[0] ?? "", /^SequenceRegressed: .*at least 18446744073709551615, got 18446744073709551614/)
      assert.strictEqual(yield* next(document(second)), second.generation)
      assert.strictEqual(yield* next(document(first, { sequence: 1n })), second.generation)
      assert.strictEqual(yield* next(document(first, { sequence: 18446744073709551615n })), first.generation)
      assert.strictEqual(yield* next(document(second, { sequence: 18446744073709551616n })), second.generation)
      assert.strictEqual(failures().length, 2)
    })
  )

  it.scoped("the sequence number of the configured bundle counts", () =>
    Effect.gen(function* () {
      const { first, second } = yield* minted
      const endpoints = [{ ...web, bundle: document(first, { sequence: 5n }) }]
      const { failures, generation } = yield* federate(new Web(answer(document(second, { sequence: 4n }))), {
        endpoints
      })
      assert.match(failures()[0] ?? "", /^SequenceRegressed/)
      assert.strictEqual(yield* generation, first.generation)
    })
  )

  it.scoped("an empty bundle is an update: nobody of that trust domain is trusted any more", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const pages = new Web(answer(document(first)))
      const { provider } = yield* federate(pages)
      pages.set(answer(empty))
      yield* TestClock.adjust("5 minutes")
      const { bundles } = yield* provider.x509Context
      assert.deepStrictEqual(bundles.bundles.get(partner)?.authorities, [])
    })
  )

  it.scoped("redirects to bundle endpoint URLs are followed, for the one request", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const pages = new Web(redirect("/other?token=secret#part"))
      pages.answers.set("https://bundles.partner.example/other?token=secret", redirect("https://cdn.example/b", 308))
      pages.answers.set("https://cdn.example/b", answer(document(first)))
      const { generation } = yield* federate(pages)
      assert.strictEqual(yield* generation, first.generation)
      yield* TestClock.adjust("5 minutes")
      const hops = [url, "https://bundles.partner.example/other?token=secret", "https://cdn.example/b"]
      assert.deepStrictEqual(
        pages.asked,
        [...hops, ...hops].map((hop) => `web ${hop}`)
      )
    })
  )

  it.scoped("every redirect of the https_spiffe profile asks for the same SPIFFE ID", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const endpointId = "spiffe://partner.example/bundles"
      const pages = new Web(redirect("https://cdn.example/b", 307))
      pages.answers.set("https://cdn.example/b", answer(document(first)))
      yield* federate(pages, { endpoints: [{ ...web, profile: "https_spiffe", endpointId, bundle: document(first) }] })
      assert.deepStrictEqual(pages.asked, [`${endpointId} ${url}`, `${endpointId} https://cdn.example/b`])
    })
  )

  it.scoped("a redirect to anything else, or one after another, is refused", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const pages = new Web(answer(document(first)))
      const { failures } = yield* federate(pages)
      const cases: ReadonlyArray<readonly [Answer, RegExp]> = [
        [redirect("http://bundles.partner.example/"), /^Redirect: expected an https: URL, got http:/],
        [redirect("https://user:pass@partner.example/"), /^Redirect: expected a URL without user information/],
        [redirect("file:///etc/passwd"), /^Redirect: expected an https: URL/],
        [redirect("https://["), /^Redirect: expected an https: URL/],
        [answer("", { status: 302 }), /^Redirect: expected a redirect's Location/],
        [redirect(url), /^Redirect: expected at most 5 redirects/]
      ]
      for (const [index, [next, expected]] of cases.entries()) {
        pages.set(next)
        yield* TestClock.adjust("5 minutes")
        assert.match(failures()[index] ?? "", expected)
      }
      assert.strictEqual(pages.asked.length, 1 + 5 + 6)
    })
  )
})
