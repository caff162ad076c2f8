/** The requests the inspector answers: the page, the snapshot, the stream of snapshots, and the reset of a breaker. */
import type { CircuitBreakerRegistry } from "@agentweave/transport/CircuitBreakerRegistry"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpIncomingMessage from "@effect/platform/HttpIncomingMessage"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Access, ofOwnPage, type Refusal } from "./access.js"
import type { Page } from "./page.js"
import { maxStreams, type Streams } from "./streams.js"

export interface Served {
  /** The JSON text of a snapshot. */
  readonly json: Effect.Effect<string>
  readonly interval: Duration.Duration
  readonly streams: Streams
  readonly page: Page
  /** The registry whose breakers may be reset; `undefined` where none may. */
  readonly resettable: Context.Tag.Service<CircuitBreakerRegistry> | undefined
}

/** Nothing is kept by a cache, shown in a frame, or read as something else. */
const headers = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin"
}

const json = (body: unknown, status = 200) => HttpServerResponse.unsafeJson(body, { status, headers })

const refuse = (status: number, error: string) => json({ error }, status)

const refused = ({ error, status }: Refusal) => refuse(status, error)

const page = ({ page: { contentSecurityPolicy, html } }: Served) =>
  Effect.succeed(
    HttpServerResponse.text(html, {
      headers: { ...headers, "content-security-policy": contentSecurityPolicy },
      contentType: "text/html; charset=utf-8"
    })
  )

const snapshot = (served: Served) =>
  Effect.map(served.json, (text) => HttpServerResponse.text(text, { headers, contentType: "application/json" }))

const events = (served: Served) =>
  Effect.map(
    served.streams.enter,
    Option.match({
      onNone: () => refuse(503, `expected at most ${maxStreams} streams at a time, close one of them first`),
      onSome: (ended) =>
        HttpServerResponse.stream(
          Stream.repeatEffectWithSchedule(served.json, Schedule.spaced(served.interval)).pipe(
            Stream.map((text) => `data: ${text}\n\n`),
            Stream.prepend(Chunk.of("retry: 2000\n\n")),
            Stream.interruptWhenDeferred(ended),
            Stream.encodeText
          ),
          { headers, contentType: "text/event-stream" }
        )
    })
  )

const Reset = Schema.Struct({ peer: Schema.String.pipe(Schema.maxLength(4_096)) })
const readReset = HttpServerRequest.schemaBodyJson(Reset).pipe(
  HttpIncomingMessage.withMaxBodySize(Option.some(16_384)),
  Effect.option
)

const reset = ({ resettable }: Served) =>
  Effect.gen(function* () {
    if (resettable === undefined) return refuse(403, "expected the option reset, breakers can only be looked at")
    const body = yield* readReset
    if (Option.isNone(body)) return refuse(400, 'expected a JSON object such as {"peer":"spiffe://example.org/api"}')
    const { peer } = body.value
    // Asking the registry for a breaker it does not have would make one.
    if (!(yield* resettable.metrics).has(peer)) return refuse(404, "expected a peer with a circuit breaker")
    const breaker = yield* resettable.get(peer)
    yield* breaker.reset
    return json({ reset: peer })
  })

type Handler = (
  served: Served
) => Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest | Scope.Scope>

const routes: ReadonlyMap<string, { readonly method: "GET" | "POST"; readonly handler: Handler }> = new Map([
  // Where it is mounted without a slash, the path is empty.
  ["", { method: "GET", handler: page }],
  ["/", { method: "GET", handler: page }],
  ["/api/snapshot", { method: "GET", handler: snapshot }],
  ["/api/events", { method: "GET", handler: events }],
  ["/api/reset", { method: "POST", handler: reset }]
])

export const app = <R>(
  served: Served,
  access: Access<R>
): HttpApp.Default<never, R | HttpServerRequest.HttpServerRequest | Scope.Scope> =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
    Effect.flatMap(access(request), (refusal) => {
      if (refusal !== undefined) return Effect.succeed(refused(refusal))
      const path = request.url.split("?")[0] ?? ""
      const route = routes.get(path)
      if (route === undefined)
        return Effect.succeed(refuse(404, "expected the page, api/snapshot, api/events or api/reset"))
      if (request.method !== route.method) {
        return Effect.succeed(
          HttpServerResponse.setHeader(
            refuse(405, `expected ${route.method}, got ${request.method}`),
            "allow",
            route.method
          )
        )
      }
      // A link on another site may lead to the page; what it shows it asks for by itself.
      const foreign = route.handler === page ? undefined : ofOwnPage(request)
      return foreign === undefined ? route.handler(served) : Effect.succeed(refused(foreign))
    })
  )
