import { SpiffeBundle, TrustDomain, type X509Bundle } from "@agentweave/spiffe"
import { DevAuthority, TestIdentity } from "@agentweave/testkit"
import { BundleEndpoint, type BundleEndpointEvent } from "@agentweave/transport-node"
import { HttpClientError, HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { Duration, Effect, Either, Random } from "effect"
import type { Get } from "../src/internal/federation/fetch.js"
import { make, type Settings } from "../src/internal/federation/poller.js"

export const partner = TrustDomain.make("partner.example")
export const url = "https://bundles.partner.example/bundle.json"

/** Minted once, at the time every test begins at. */
export const minted = Effect.runSync(
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

export const document = (
  x509Bundle: X509Bundle.X509Bundle,
  more: { readonly sequence?: bigint; readonly refreshHint?: Duration.DurationInput } = {}
): string => SpiffeBundle.toJson(SpiffeBundle.make({ x509Bundle, ...more }))

export type Answer = Effect.Effect<Response, Error>

export const answer = (body: string, init?: ResponseInit): Answer => Effect.sync(() => new Response(body, init))

export const down: Answer = Effect.suspend(() =>
  Effect.fail(
    new HttpClientError.RequestError({
      request: HttpClientRequest.get(url),
      reason: "Transport",
      cause: Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" })
    })
  )
)

/** Endpoints under the test's control: what each URL answers, and what was asked. */
export class Web {
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

export const web = { profile: "https_web", trustDomain: "partner.example", url } as const

export const settings = (
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
export const federate = Effect.fnUntraced(function* (
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
