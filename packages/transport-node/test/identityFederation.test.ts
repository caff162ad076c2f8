import {
  IdentityError,
  IdentityProblem,
  IdentityProvider,
  PeerVerificationError,
  SpiffeBundle,
  TrustDomain,
  type X509Bundle,
  type X509Context
} from "@agentweave/spiffe"
import { DevAuthority, TestIdentity } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, IdentityMonitor } from "@agentweave/transport"
import { BundleEndpoint, type BundleEndpointEvent, FederatedBundles } from "@agentweave/transport-node"
import { HttpClientError, HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Chunk,
  Deferred,
  Duration,
  Effect,
  Either,
  Exit,
  Fiber,
  Layer,
  Logger,
  Queue,
  Random,
  Stream,
  TestClock
} from "effect"
import type { Get } from "../src/internal/federation/fetch.js"
import { make, type Settings } from "../src/internal/federation/poller.js"

const partner = TrustDomain.make("partner.example")
const url = "https://bundles.partner.example/bundle.json"

/** Minted once, at the time every test begins at. */
const minted = Effect.runSync(
  Effect.cached(
    Effect.gen(function* () {
      const own = yield* DevAuthority.make({ trustDomain: "example.org" })
      const foreign = yield* DevAuthority.make({ trustDomain: "partner.example" })
      const rotated = yield* foreign.rotateRoot()
      const context = yield* own.context({ path: "/api" })
      return { own, foreign, context, first: foreign.bundle, second: rotated.bundle }
    })
  )
)

const document = (
  x509Bundle: X509Bundle.X509Bundle,
  more: { readonly sequence?: bigint; readonly refreshHint?: Duration.DurationInput } = {}
): string => SpiffeBundle.toJson(SpiffeBundle.make({ x509Bundle, ...more }))

const empty = `{"keys": []}`

type Answer = Effect.Effect<Response, Error>

const answer = (body: string, init?: ResponseInit): Answer => Effect.sync(() => new Response(body, init))

const redirect = (location: string, status = 302): Answer => answer("", { status, headers: { location } })

const down: Answer = Effect.suspend(() =>
  Effect.fail(
    new HttpClientError.RequestError({
      request: HttpClientRequest.get(url),
      reason: "Transport",
      cause: Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" })
    })
  )
)

/** Endpoints under the test's control: what each URL answers, and what was asked. */
class Web {
  readonly answers = new Map<string, Answer>()
  readonly asked: Array<string> = []

  constructor(initial: Answer) {
    this.answers.set(url, initial)
  }

  set(next: Answer): void {
    this.answers.set(url, next)
  }

  readonly get: Get = (endpoint, target) =>
    Effect.suspend(() => {
      this.asked.push(`${endpoint.endpointId ?? "web"} ${target.href}`)
      const found = this.answers.get(target.href)
      if (found === undefined) return Effect.dieMessage(`nothing at ${target.href}`)
      return Effect.map(found, (response) => HttpClientResponse.fromWeb(HttpClientRequest.get(target), response))
    })
}

const web = { profile: "https_web", trustDomain: "partner.example", url } as const

const settings = (
  endpoints: ReadonlyArray<BundleEndpoint.Options>,
  onEvent: Settings["onEvent"] = () => Effect.void
): Settings => ({
  endpoints: Either.getOrThrow(Either.all(endpoints.map(BundleEndpoint.make))),
  intervals: {
    min: Duration.minutes(1),
    max: Duration.hours(1),
    refresh: Duration.minutes(5),
    retryBase: Duration.seconds(5)
  },
  limits: { maxBytes: 100_000, timeout: Duration.seconds(30) },
  initialWait: Duration.seconds(5),
  onEvent
})

/** A federated provider over a fake web; every random number is 0, so that delays are at their longest. */
const federate = Effect.fnUntraced(function* (
  pages: Web,
  options: {
    readonly endpoints?: ReadonlyArray<BundleEndpoint.Options>
    readonly identity?: TestIdentity.TestIdentity
    readonly random?: number
  } = {}
) {
  const { context } = yield* minted
  const identity = options.identity ?? (yield* TestIdentity.make(context))
  const events: Array<BundleEndpointEvent.BundleEndpointEvent> = []
  const provider = yield* make(
    identity.provider,
    settings(options.endpoints ?? [web], (event) => Effect.sync(() => events.push(event))),
    () => Effect.succeed(pages.get)
  ).pipe(Effect.withRandom(Random.fixed([options.random ?? 0])))
  const generation = Effect.map(
    provider.x509Context,
    ({ bundles }) => bundles.bundles.get(partner)?.generation ?? "none"
  )
  const failures = () =>
    events.flatMap((event) => (event._tag === "BundleFetchFailed" ? [`${event.reason}: ${event.description}`] : []))
  return { provider, events, generation, failures, identity }
})

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

describe("federated bundles: one bundle a trust domain", () => {
  it.scoped("no endpoint can be configured for our own trust domain, and none twice", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const pages = new Web(answer(document(first)))
      const refused = (endpoints: ReadonlyArray<BundleEndpoint.Options>) =>
        Effect.map(Effect.flip(Effect.scoped(federate(pages, { endpoints }))), (error) => error.message)
      assert.match(yield* refused([{ ...web, trustDomain: "example.org" }]), /foreign trust domains, got example.org/)
      assert.match(
        yield* refused([web, { ...web, url: "https://b.example/" }]),
        /one endpoint .* two for partner.example/
      )
      assert.deepStrictEqual(pages.asked, [])
    })
  )

  it.scoped("an endpoint whose trust domain becomes our own is not believed any more", () =>
    Effect.gen(function* () {
      const { first, foreign, second } = yield* minted
      const { generation, identity } = yield* federate(new Web(answer(document(second))))
      assert.strictEqual(yield* generation, second.generation)
      yield* identity.rotate(foreign.context({ path: "/api" }))
      assert.strictEqual(yield* generation, first.generation)
    })
  )

  it.scoped("a fetched bundle stands in place of the inner provider's, as a whole", () =>
    Effect.gen(function* () {
      const { first, foreign, own, second } = yield* minted
      const identity = yield* TestIdentity.make(yield* own.context({ path: "/api", federatesWith: [foreign] }))
      const pages = new Web(down)
      const { generation, provider } = yield* federate(pages, { identity })
      assert.strictEqual(yield* generation, first.generation)
      const other = yield* DevAuthority.make({ trustDomain: "partner.example" })
      pages.set(answer(document(other.bundle)))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* generation, other.bundle.generation)
      assert.strictEqual((yield* provider.x509Context).bundles.bundles.get(partner)?.authorities.length, 1)
      assert.notStrictEqual(other.bundle.generation, second.generation)
    })
  )

  it.scoped("a bundle to verify the endpoint with must be there before the first fetch", () =>
    Effect.gen(function* () {
      const { first, foreign, own } = yield* minted
      const pages = new Web(answer(document(first)))
      const endpointId = "spiffe://partner.example/bundles"
      const selfServing = { ...web, profile: "https_spiffe", endpointId } as const
      const error = yield* Effect.flip(Effect.scoped(federate(pages, { endpoints: [selfServing] })))
      assert.match(error.message, /expected a bundle to verify spiffe:\/\/partner.example\/bundles with the first time/)
      yield* federate(pages, { endpoints: [{ ...selfServing, bundle: document(first) }] })
      const identity = yield* TestIdentity.make(yield* own.context({ path: "/api", federatesWith: [foreign] }))
      yield* federate(pages, { endpoints: [selfServing], identity })
      yield* federate(pages, { endpoints: [{ ...selfServing, endpointId: "spiffe://example.org/bundles" }] })
      assert.strictEqual(pages.asked.length, 3)
    })
  )

  it.scoped("an endpoint is asked with the bundles known by then", () =>
    Effect.gen(function* () {
      const { context, first, second } = yield* minted
      const identity = yield* TestIdentity.make(context)
      const known: Array<string | undefined> = []
      const answers = [second, first]
      yield* make(identity.provider, settings([{ ...web, bundle: document(first) }]), (provider) =>
        Effect.succeed((_endpoint, target) =>
          Effect.gen(function* () {
            const { bundles } = yield* Effect.orDie(provider.x509Context)
            known.push(bundles.bundles.get(partner)?.generation)
            const body = document(answers[(known.length - 1) % 2] ?? first)
            return HttpClientResponse.fromWeb(HttpClientRequest.get(target), new Response(body))
          })
        )
      )
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(known, [first.generation, second.generation])
    })
  )

  it.scoped("an identity that is lost is lost here too", () =>
    Effect.gen(function* () {
      const { first } = yield* minted
      const none = yield* TestIdentity.make()
      const pages = new Web(answer(document(first)))
      const error = yield* Effect.flip(Effect.scoped(federate(pages, { identity: none })))
      assert.strictEqual(error._tag, "IdentityError")
      const { identity, provider } = yield* federate(pages)
      const { IdentityError } = yield* Effect.promise(() => import("@agentweave/spiffe/IdentityError"))
      yield* identity.fail(new IdentityError({ reason: "Withdrawn", description: "gone" }))
      assert.strictEqual((yield* Effect.flip(provider.x509Context)).reason, "Withdrawn")
    })
  )

  it.scoped("a defect in the hook does not stop the polling", () =>
    Effect.gen(function* () {
      const { context, first } = yield* minted
      const pages = new Web(answer(document(first)))
      const identity = yield* TestIdentity.make(context)
      yield* make(
        identity.provider,
        settings([web], () => Effect.dieMessage("the hook")),
        () => Effect.succeed(pages.get)
      )
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(pages.asked.length, 2)
    })
  )

  it.scoped("reports leave out a URL's query, and every failure is a warning", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.map(Logger.logfmtLogger, (line) => lines.push(line))
      const secret = `${url}?token=secret`
      const pages = new Web(down)
      yield* Effect.gen(function* () {
        for (const next of [answer("", { status: 500 }), Effect.fail(new Error(`no answer from ${secret}`))]) {
          pages.answers.set(secret, next)
          const { events } = yield* federate(pages, { endpoints: [{ ...web, url: secret }] })
          assert.notInclude(JSON.stringify([lines, events]), "secret")
        }
      }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
      assert.match(lines.join("\n"), /level=WARN .*BundleFetchFailed.*reason=Status/)
      assert.match(lines.join("\n"), /no answer from https:\/\/bundles.partner.example\/bundle.json/)
    })
  )
})

describe("FederatedBundles.layer: options", () => {
  it.effect("what cannot be right is refused with its field", () =>
    Effect.gen(function* () {
      const { context } = yield* minted
      const refused = (options: Partial<FederatedBundles.Options>) =>
        FederatedBundles.layer({ endpoints: [], ...options }).pipe(
          Layer.provide(IdentityProvider.layerStatic(context)),
          Layer.provide(AuditLog.layerMemory([])),
          Layer.build,
          Effect.scoped,
          Effect.exit,
          Effect.map((exit) => (Exit.isFailure(exit) ? String(exit.cause) : "accepted"))
        )
      const spiffe = { ...web, profile: "https_spiffe", endpointId: "spiffe://partner.example/b" } as const
      const cases: ReadonlyArray<readonly [Partial<FederatedBundles.Options>, RegExp]> = [
        [{ endpoints: [{ ...web, url: "http://partner.example/" }] }, /BundleEndpoint.url: expected an https: URL/],
        [{ endpoints: [{ ...web, url: "https://u@partner.example/" }] }, /BundleEndpoint.url: .*user information/],
        [{ endpoints: [{ ...web, url: "partner.example" }] }, /BundleEndpoint.url: expected an https: URL/],
        [{ endpoints: [{ ...web, trustDomain: "Partner.example" }] }, /BundleEndpoint.trustDomain: /],
        [{ endpoints: [{ ...spiffe, endpointId: "partner.example" }] }, /BundleEndpoint.endpointId: /],
        [{ endpoints: [{ ...web, bundle: "garbage" }] }, /BundleEndpoint.bundle: /],
        [{ maxBytes: 0 }, /FederatedBundles.maxBytes: /],
        [{ minRefreshInterval: 0 }, /FederatedBundles.minRefreshInterval: /],
        [{ minRefreshInterval: "2 hours" }, /FederatedBundles.maxRefreshInterval: .*at least minRefreshInterval 2h/],
        [{ refreshInterval: Duration.infinity }, /FederatedBundles.refreshInterval: /],
        [{ retryBaseDelay: 0 }, /FederatedBundles.retryBaseDelay: /],
        [{ timeout: 0 }, /FederatedBundles.timeout: /],
        [{ initialWait: -1 }, /FederatedBundles.initialWait: expected a duration that is not negative, got -1/],
        [{ initialWait: 0 }, /accepted/],
        [{}, /accepted/]
      ]
      for (const [options, expected] of cases) assert.match(yield* refused(options), expected, JSON.stringify(options))
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
