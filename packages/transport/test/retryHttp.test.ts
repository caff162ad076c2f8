import { PeerVerificationError } from "@agentweave/spiffe"
import { CircuitBreaker, RetryPolicy, TransportError } from "@agentweave/transport"
import { HttpBody, HttpClient, HttpClientError, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Ref, Stream, TestClock } from "effect"
import { finish, plain, scripted } from "./scriptedClient.js"

type Method = "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "POST" | "PATCH"

const connection = (outcome: TransportError.Outcome, reason: TransportError.ConnectionErrorReason = "Refused") =>
  new TransportError.ConnectionError({ reason, outcome, address: "10.0.0.1:443", description: "it went wrong" })

const timeout = (phase: TransportError.TimeoutPhase, outcome: TransportError.Outcome) =>
  new TransportError.TimeoutError({ phase, outcome, limit: Duration.seconds(1), target: "billing" })

describe("withRetry", () => {
  const idempotent: Record<Method, boolean> = {
    GET: true,
    HEAD: true,
    PUT: true,
    DELETE: true,
    OPTIONS: true,
    POST: false,
    PATCH: false
  }

  const outcomes = [
    ["a status", 503],
    ["an error of unknown outcome", { error: connection("Unknown") }],
    ["an error before it was sent", { error: connection("NotSent") }],
    ["a timeout of unknown outcome", { error: timeout("Headers", "Unknown") }],
    ["a timeout before it was sent", { error: timeout("Connect", "NotSent") }]
  ] as const

  const bodies: ReadonlyArray<readonly [replayed: boolean, body: HttpBody.HttpBody]> = [
    [true, HttpBody.empty],
    [true, HttpBody.text("text")],
    [true, HttpBody.unsafeJson({ a: 1 })],
    [true, HttpBody.formData(new FormData())],
    [false, HttpBody.stream(Stream.make(new Uint8Array(3)))],
    [false, HttpBody.raw("text")]
  ]

  it.effect("retries statuses 408, 429, 502, 503 and 504, and returns the last response as it is", () =>
    Effect.gen(function* () {
      for (const status of [408, 429, 502, 503, 504]) {
        const { client, times } = scripted(status)
        const response = yield* finish(RetryPolicy.withRetry(client, yield* plain).get("/"))
        assert.strictEqual(response.status, status)
        assert.deepStrictEqual(
          times.map((_) => _ - (times[0] ?? 0)),
          [0, 1, 3, 7]
        )
      }
      for (const status of [200, 304, 400, 401, 404, 409, 500, 501, 505]) {
        const { client, times } = scripted(status)
        assert.strictEqual((yield* RetryPolicy.withRetry(client, yield* plain).get("/")).status, status)
        assert.strictEqual(times.length, 1)
      }
    })
  )

  it.effect("the statuses can be chosen", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ jitter: false, statuses: [500] })
      const { client, times } = scripted(500, 503)
      assert.strictEqual((yield* finish(RetryPolicy.withRetry(client, policy).get("/"))).status, 503)
      assert.strictEqual(times.length, 2)
      assert.deepInclude(yield* policy.stats, { retries: 1, recovered: 1 })
    })
  )

  for (const [method, safe] of Object.entries(idempotent) as ReadonlyArray<[Method, boolean]>) {
    for (const [outcome, answer] of outcomes) {
      const again = safe || outcome.includes("before it was sent")
      it.effect(`${again ? "retries" : "does not retry"} ${method} after ${outcome}`, () =>
        Effect.gen(function* () {
          const { client, times } = scripted<unknown>(answer, 200)
          const request = HttpClientRequest.make(method)("/")
          yield* finish(Effect.exit(RetryPolicy.withRetry(client, yield* plain).execute(request)))
          assert.strictEqual(times.length, again ? 2 : 1)
        })
      )
    }
  }

  it.effect("does not retry what would fail again, even if it was not sent", () =>
    Effect.gen(function* () {
      const refused = new PeerVerificationError.PeerVerificationError({
        expectedId: "spiffe://example.org/billing",
        actualId: null,
        reason: "UntrustedChain",
        description: "no path"
      })
      const always = yield* RetryPolicy.make({ jitter: false, isRetryable: () => true })
      const breaker = yield* CircuitBreaker.make({ target: "billing" })
      yield* breaker.isolate
      const open = yield* Effect.flip(breaker.protect(Effect.void))
      for (const [policy, error] of [
        [yield* plain, connection("NotSent", "NotTls")],
        [yield* plain, new HttpClientError.RequestError({ request: HttpClientRequest.get("/"), reason: "InvalidUrl" })],
        [always, refused],
        [always, open]
      ] as const) {
        const { client, times } = scripted<unknown>({ error }, 200)
        yield* finish(Effect.exit(RetryPolicy.withRetry(client, policy).get("/")))
        assert.strictEqual(times.length, 1, String(error))
      }
    })
  )

  it.effect("an error of the platform's clients is retried if it is one of transport", () =>
    Effect.gen(function* () {
      const request = HttpClientRequest.get("/")
      const error = new HttpClientError.RequestError({ request, reason: "Transport" })
      const { client, times } = scripted({ error }, 200)
      yield* finish(RetryPolicy.withRetry(client, yield* plain).get("/"))
      assert.strictEqual(times.length, 2)
      const post = scripted({ error }, 200)
      yield* finish(Effect.exit(RetryPolicy.withRetry(post.client, yield* plain).post("/")))
      assert.strictEqual(post.times.length, 1)
    })
  )

  it.effect("a status that the client makes an error is retried like the status", () =>
    Effect.gen(function* () {
      const { client, times } = scripted({ status: 503, headers: { "retry-after": "5" } }, 404)
      const error = yield* finish(
        Effect.flip(client.pipe(HttpClient.filterStatusOk, RetryPolicy.withRetry(yield* plain)).get("/"))
      )
      assert.strictEqual(error._tag === "ResponseError" ? error.response.status : 0, 404)
      assert.deepStrictEqual(times, [0, 5])
      const post = scripted(503)
      yield* Effect.exit(post.client.pipe(HttpClient.filterStatusOk, RetryPolicy.withRetry(yield* plain)).post("/"))
      assert.strictEqual(post.times.length, 1)
    })
  )

  for (const [replayed, body] of bodies) {
    it.effect(
      `${replayed ? "replays" : "never replays"} a body of kind ${body._tag} (${body.contentType ?? "no type"})`,
      () =>
        Effect.gen(function* () {
          for (const answer of [503, { error: connection("Unknown") }, { error: connection("NotSent") }]) {
            const { client, times } = scripted(answer, 200)
            const request = HttpClientRequest.setBody(HttpClientRequest.put("/"), body)
            yield* finish(Effect.exit(RetryPolicy.withRetry(client, yield* plain).execute(request)))
            assert.strictEqual(times.length, replayed ? 2 : 1)
          }
        })
    )
  }

  describe("the body of a response that is retried", () => {
    /** A body of so many chunks of 1 KiB that notes whether it was read to its end, and that it was let go. */
    const watched = (chunks: number, last: Stream.Stream<Uint8Array> = Stream.empty) =>
      Effect.gen(function* () {
        const log = yield* Ref.make<ReadonlyArray<string>>([])
        const note = (event: string) => Ref.update(log, (_) => [..._, event])
        const body = Stream.range(1, chunks).pipe(
          Stream.map(() => new Uint8Array(1_024)),
          Stream.rechunk(1),
          Stream.concat(last),
          Stream.concat(Stream.execute(note("read"))),
          Stream.ensuring(note("let go"))
        )
        return { body, log }
      })

    it.effect("is read to its end before the next attempt", () =>
      Effect.gen(function* () {
        const { body, log } = yield* watched(3)
        const { client, times } = scripted({ status: 503, body }, 200)
        const fiber = yield* Effect.fork(RetryPolicy.withRetry(client, yield* plain).get("/"))
        yield* TestClock.adjust("999 millis")
        assert.deepStrictEqual(yield* Ref.get(log), ["read", "let go"])
        assert.deepStrictEqual(times, [0])
        yield* TestClock.adjust("1 milli")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(times, [0, 1])
      })
    )

    it.effect("is dropped after 64 KiB", () =>
      Effect.gen(function* () {
        const { body, log } = yield* watched(65)
        const { client } = scripted({ status: 503, body }, 200)
        yield* finish(RetryPolicy.withRetry(client, yield* plain).get("/"))
        assert.deepStrictEqual(yield* Ref.get(log), ["let go"])
      })
    )

    it.effect("is dropped after a second, and the delay is no longer for it", () =>
      Effect.gen(function* () {
        const { body, log } = yield* watched(1, Stream.never)
        const { client, times } = scripted({ status: 503, body, headers: { "retry-after": "4" } }, 200)
        const fiber = yield* Effect.fork(RetryPolicy.withRetry(client, yield* plain).get("/"))
        yield* TestClock.adjust("999 millis")
        assert.deepStrictEqual(yield* Ref.get(log), [])
        yield* TestClock.adjust("1 milli")
        assert.deepStrictEqual(yield* Ref.get(log), ["let go"])
        yield* finish(Fiber.join(fiber))
        assert.deepStrictEqual(times, [0, 4])
      })
    )

    it.effect("is dropped when the delay is over, so that no attempt is late", () =>
      Effect.gen(function* () {
        const { body, log } = yield* watched(1, Stream.never)
        const policy = yield* RetryPolicy.make({ jitter: false, baseDelay: "300 millis", totalTimeout: "500 millis" })
        const { client, times } = scripted({ status: 503, body }, 200)
        yield* finish(RetryPolicy.withRetry(client, policy).get("/"))
        assert.deepStrictEqual(yield* Ref.get(log), ["let go"])
        assert.deepStrictEqual(times, [0, 0.3])
      })
    )

    it.effect("may be missing or break", () =>
      Effect.gen(function* () {
        const { client, times } = scripted(503, { status: 503, body: Stream.die("broken") }, 200)
        yield* finish(RetryPolicy.withRetry(client, yield* plain).get("/"))
        assert.strictEqual(times.length, 3)
      })
    )

    it.effect("is left alone if it is the last", () =>
      Effect.gen(function* () {
        const { body, log } = yield* watched(1)
        const { client } = scripted({ status: 503, body })
        const response = yield* RetryPolicy.withRetry(client, yield* RetryPolicy.make({ maxRetries: 0 })).get("/")
        assert.deepStrictEqual(yield* Ref.get(log), [])
        yield* Stream.runDrain(response.stream)
        assert.deepStrictEqual(yield* Ref.get(log), ["read", "let go"])
      })
    )

    it.effect("is let go if the caller is interrupted while it is read", () =>
      Effect.gen(function* () {
        const { body, log } = yield* watched(1, Stream.never)
        const { client } = scripted({ status: 503, body })
        const fiber = yield* Effect.fork(RetryPolicy.withRetry(client, yield* plain).get("/"))
        yield* TestClock.adjust("500 millis")
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
        assert.deepStrictEqual(yield* Ref.get(log), ["let go"])
      })
    )
  })

  it.effect("all attempts send the same request", () =>
    Effect.gen(function* () {
      const { client, requests } = scripted(503, 503, 200)
      let key = 0
      const keyed = client.pipe(
        RetryPolicy.withRetry(yield* plain),
        HttpClient.mapRequest((request) => HttpClientRequest.setHeader(request, "idempotency-key", String(++key)))
      )
      yield* finish(keyed.get("/"))
      assert.deepStrictEqual(
        requests.map((request) => request.headers["idempotency-key"]),
        ["1", "1", "1"]
      )
    })
  )

  it.effect("an attempt that is timed out is retried only if the method is idempotent", () =>
    Effect.gen(function* () {
      const policy = yield* RetryPolicy.make({ jitter: false, attemptTimeout: "2 seconds", maxRetries: 1 })
      const hanging = HttpClient.makeWith<never, never, never, never>(
        Effect.flatMap(() => Effect.never),
        Effect.succeed
      ).pipe(RetryPolicy.withRetry(policy))
      for (const [request, attempts] of [
        [HttpClientRequest.get("https://billing.internal/invoices?token=secret#top"), 2],
        [HttpClientRequest.post("https://billing.internal/invoices"), 1]
      ] as const) {
        const before = (yield* policy.stats).attemptTimeouts
        const error = yield* finish(Effect.flip(hanging.execute(request)))
        assert.strictEqual((yield* policy.stats).attemptTimeouts - before, attempts)
        assert.strictEqual(error.target, `${request.method} https://billing.internal/invoices`)
      }
    })
  )

  it.effect("composes with a breaker in either order", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ target: "billing", failureThreshold: 3 })
      const { client, times } = scripted(503)
      const outside = client.pipe(CircuitBreaker.withBreaker(breaker), RetryPolicy.withRetry(yield* plain))
      // The third failure opens the breaker, whose refusal is not retried.
      const error = yield* finish(Effect.flip(outside.get("/")))
      assert.strictEqual(error._tag, "CircuitOpenError")
      assert.strictEqual(times.length, 3)
      yield* breaker.reset
      const inside = client.pipe(RetryPolicy.withRetry(yield* plain), CircuitBreaker.withBreaker(breaker))
      yield* finish(inside.get("/"))
      assert.deepInclude(yield* breaker.metrics, { state: "Closed", failureCount: 1 })
      assert.strictEqual(times.length, 7)
    })
  )
})
