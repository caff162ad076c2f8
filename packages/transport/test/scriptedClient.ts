import { RetryPolicy } from "@agentweave/transport"
import { HttpClient, type HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { Clock, type Duration, Effect, Fiber, type Stream, TestClock } from "effect"

/** A client that gives one answer after the other, the last one again and again, and notes when each was asked for. */
export const scripted = <E = never>(
  ...answers: ReadonlyArray<
    | number
    | { readonly status: number; readonly headers?: Record<string, string>; readonly body?: Stream.Stream<Uint8Array> }
    | { readonly error: E }
  >
) => {
  const times: Array<number> = []
  const requests: Array<HttpClientRequest.HttpClientRequest> = []
  const client = HttpClient.makeWith<never, never, E, never>(
    Effect.flatMap((request) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const answer = answers[Math.min(times.length, answers.length - 1)] ?? 200
        times.push(now / 1_000)
        requests.push(request)
        if (typeof answer === "object" && "error" in answer) {
          return Effect.fail(answer.error)
        }
        const { body, headers, status } = typeof answer === "number" ? { status: answer } : answer
        const response = HttpClientResponse.fromWeb(request, new Response(null, { status, headers: headers ?? {} }))
        return Effect.succeed(
          body === undefined ? response : Object.defineProperty(response, "stream", { value: body })
        )
      })
    ),
    Effect.succeed
  )
  return { client, times, requests }
}

/** Runs a request to its end, whatever time it takes. */
export const finish = <A, E>(effect: Effect.Effect<A, E>, wait: Duration.DurationInput = "1 day") =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(effect)
    yield* TestClock.adjust(wait)
    return yield* Fiber.join(fiber)
  })

export const plain = RetryPolicy.make({ jitter: false })
