/** What must not be seen anywhere: private keys, header values, queries. Random requests over a network in memory. */
import { Explanation, IdentityProvider, PeerMatcher, PeerVerifier, type X509Svid } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestConnector from "@agentweave/testkit/TestConnector"
import {
  type AuditEvent,
  AuditLog,
  PeerDirectory,
  PrometheusMetrics,
  Transport,
  TransportError
} from "@agentweave/transport"
import { HttpClientRequest, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import {
  Context,
  Effect,
  Either,
  Exit,
  FastCheck,
  Fiber,
  Layer,
  Logger,
  LogLevel,
  Redacted,
  TestClock,
  Tracer
} from "effect"
import { holdsKey, printed } from "./leaks.js"

const key = (svid: X509Svid.X509Svid): ReadonlyArray<Uint8Array> => {
  const privateKey = Redacted.value(svid.privateKey)
  // Of a key on a curve the scalar is the secret; the rest of its PKCS#8 form is the public key.
  return [Buffer.from(privateKey.export({ format: "jwk" }).d ?? "", "base64url")]
}

describe("the search for a key", () => {
  const secret = Uint8Array.from({ length: 32 }, (_, index) => (index * 37 + 11) % 256)
  it("finds it in every form", () => {
    const inside = Buffer.concat([Buffer.from("before"), secret.subarray(3, 19), Buffer.from("after")])
    for (const form of [
      printed(inside),
      printed(Uint8Array.from(inside)),
      inside.toString("hex"),
      inside.toString("base64"),
      inside.toString("base64url"),
      inside.toString("latin1"),
      `${Uint8Array.from(inside)}`
    ]) {
      expect(holdsKey(form, secret)).toBe(true)
    }
    expect(holdsKey(printed(Buffer.alloc(100, "nothing")), secret)).toBe(false)
  })
})

/** A value nobody else would print. */
const secret = FastCheck.hexaString({ minLength: 20, maxLength: 40 }).map((text) => `s3cr3t-${text}`)

const headerName = FastCheck.oneof(
  FastCheck.constantFrom("authorization", "cookie", "proxy-authorization", "x-api-key", "x-session"),
  FastCheck.stringMatching(/^[a-z]{3,12}$/).map((name) => `x-${name}`)
)

const outcome = FastCheck.constantFrom("Answered", "Failing", "Refused", "Impostor", "Broken" as const)

const calls = FastCheck.array(
  FastCheck.record({
    headers: FastCheck.dictionary(headerName, secret, { minKeys: 1, maxKeys: 4 }),
    query: FastCheck.dictionary(FastCheck.stringMatching(/^[a-z]{1,8}$/), secret, { minKeys: 1, maxKeys: 3 }),
    outcome
  }),
  { minLength: 1, maxLength: 4 }
)

/** Keeps what spans are made of. */
const tracing = (seen: Array<unknown>): Tracer.Tracer =>
  Tracer.make({
    context: (run) => run(),
    span: (name, parent, context, links, startTime, kind) => {
      const attributes = new Map<string, unknown>()
      seen.push(name, attributes)
      return {
        _tag: "Span",
        name,
        spanId: "0".repeat(16),
        traceId: "1".repeat(32),
        parent,
        context,
        links: [...links],
        sampled: true,
        kind,
        attributes,
        status: { _tag: "Started", startTime },
        end: (_, exit) => {
          if (Exit.isFailure(exit)) seen.push(exit.cause)
        },
        attribute: (name, value) => attributes.set(name, value),
        event: (name, _, attributes) => seen.push(name, attributes),
        addLinks: () => {}
      }
    }
  })

it.scoped.prop(
  "no event, log entry, metric, span or error of the transport holds a key, a header value or a query",
  [calls],
  ([calls]) =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const context = yield* authority.context({ path: "/web" })
      const api = authority.id("/api")
      const network = yield* TestConnector.make()
      const events: Array<AuditEvent.AuditEvent> = []
      const logged: Array<string> = []
      const spans: Array<unknown> = []
      const logger = Logger.make((options) => {
        logged.push(Logger.logfmtLogger.log(options), Logger.stringLogger.log(options), Logger.jsonLogger.log(options))
      })

      const Stack = Transport.layer({ pool: { maxConnectionsPerTarget: 1 }, breaker: { failureThreshold: 3 } }).pipe(
        Layer.provide(network.layer),
        Layer.provide(PeerDirectory.layerStatic({ [api]: "https://api.test" })),
        Layer.provide(IdentityProvider.layerStatic(context)),
        Layer.provide(AuditLog.layerTee(AuditLog.layerMemory(events), AuditLog.layerLogger)),
        Layer.provide(Logger.replace(Logger.defaultLogger, logger)),
        Layer.provide(Logger.minimumLogLevel(LogLevel.All))
      )
      const services = yield* Layer.build(Stack)
      const client = yield* Context.get(services, Transport.Transport).client(api)
      const errors: Array<unknown> = []
      for (const { headers, outcome, query } of calls) {
        yield* network.setOnConnect(
          outcome === "Refused"
            ? TestConnector.unreachable()
            : outcome === "Impostor"
              ? TestConnector.impostor(authority.id("/other"))
              : TestConnector.reachable
        )
        yield* network.setHandler(() =>
          outcome === "Broken"
            ? Effect.fail(
                new TransportError.ConnectionError({
                  reason: "Closed",
                  outcome: "Unknown",
                  address: "api.test:443",
                  description: "as the test has it"
                })
              )
            : Effect.succeed(HttpServerResponse.text("answer", { status: outcome === "Failing" ? 500 : 200 }))
        )
        if (outcome === "Refused" || outcome === "Impostor") yield* network.closeAll()
        const request = HttpClientRequest.post("/orders", { headers, urlParams: query })
        const running = yield* Effect.fork(
          Effect.withTracer(Effect.either(Effect.scoped(client.execute(request))), tracing(spans))
        )
        // Past the delays of retries.
        yield* TestClock.adjust("1 minute")
        const answer = yield* Fiber.join(running)
        // An error of the platform carries the request it is about, to whom made it.
        if (Either.isLeft(answer) && !("request" in answer.left)) errors.push(answer.left)
      }

      const secrets = calls.flatMap(({ headers, query }) => [...Object.values(headers), ...Object.values(query)])
      const outputs = [
        ["events", JSON.stringify(events) + printed(events)],
        ["log", logged.join("\n")],
        ["metrics", yield* PrometheusMetrics.text],
        ["spans", spans.map(printed).join("\n")],
        ["errors", errors.map(printed).join("\n")]
      ] as const
      expect(events.length).toBeGreaterThan(0)
      expect(logged.length).toBeGreaterThan(0)
      for (const [name, text] of outputs) {
        for (const secret of secrets) expect(text.includes(secret), `${name} hold ${secret}`).toBe(false)
        expect(
          key(context.svid).some((bytes) => holdsKey(text, bytes)),
          name
        ).toBe(false)
      }
    }),
  { fastCheck: { numRuns: 5 } }
)

it.effect("an explanation holds certificates by what they say, and no key", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const context = yield* authority.context({ path: "/web" })
    for (const path of ["/web", "/other"]) {
      const explanation = yield* PeerVerifier.explain({
        chain: context.svid.certificates,
        bundles: context.bundles,
        matcher: PeerMatcher.exactly(authority.id(path))
      })
      const text = Explanation.render(explanation) + printed(explanation)
      expect(key(context.svid).some((bytes) => holdsKey(text, bytes))).toBe(false)
    }
    expect(key(context.svid).some((bytes) => holdsKey(printed(context), bytes))).toBe(false)
  })
)
