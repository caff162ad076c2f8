import { DevAuthority } from "@agentweave/testkit"
import { CircuitBreaker } from "@agentweave/transport"
import { HttpBody, HttpClientRequest } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { failure, realTime, startClient, startServer } from "./fixture.js"

const faults: Readonly<Record<string, HttpClientRequest.HttpClientRequest>> = {
  "a header value that HTTP cannot carry": HttpClientRequest.get("/", { headers: { "x-name": "日本" } }),
  "a body stream that fails": HttpClientRequest.put("/", {
    body: HttpBody.stream(Stream.concat(Stream.make(new Uint8Array(3)), Stream.fail("no more")))
  }),
  "a body stream that dies": HttpClientRequest.put("/", { body: HttpBody.stream(Stream.die("no more")) }),
  "a content-length that is not the body's": HttpClientRequest.put("/", {
    body: HttpBody.text("more than seven")
  }).pipe(HttpClientRequest.setHeader("content-length", "7")),
  "a URL of another origin": HttpClientRequest.get("https://example.org/"),
  "a plaintext URL": HttpClientRequest.get("http://example.org/")
}

for (const [fault, request] of Object.entries(faults)) {
  it.scoped(`the caller's fault does not open the circuit to a healthy peer: ${fault}`, () =>
    Effect.gen(function* () {
      yield* realTime
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const server = yield* authority.context({ path: "/api" })
      const client = yield* authority.context({ path: "/web" })
      const { port } = yield* startServer({ identity: server, authorize: client.svid.spiffeId })
      const channel = yield* Effect.flatMap(startClient(client), (started) =>
        started.channel({ port, peer: server.svid.spiffeId })
      )
      const breaker = yield* CircuitBreaker.make({ target: server.svid.spiffeId })
      const guarded = CircuitBreaker.withBreaker(channel, breaker)
      for (let call = 0; call < 6; call++) {
        expect(yield* failure(guarded.execute(request))).toMatchObject({ _tag: "RequestError" })
      }
      expect((yield* guarded.get("/")).status).toBe(200)
      expect(yield* breaker.metrics).toMatchObject({ state: "Closed", totalFailures: 0, totalExcluded: 6 })
    })
  )
}
