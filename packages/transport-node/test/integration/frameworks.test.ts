import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as NodeSecureServer from "@agentweave/transport-node/NodeSecureServer"
import { HttpBody } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { failure, host, hostileClient, identityLayer, makeLog, realTime, startClient } from "./fixture.js"
import { frameworks } from "./frameworks.js"

const setUp = Effect.fnUntraced(function* (name: string) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const log = makeLog()
  const listener = yield* Effect.promise(async () => frameworks[name]?.())
  if (listener === undefined) return yield* Effect.dieMessage(`no framework ${name}`)
  const address = yield* NodeSecureServer.makeListener(listener, {
    port: 0,
    host,
    authorize: PeerMatcher.exactly(authority.id("/client")),
    gracefulShutdownTimeout: "10 millis"
  }).pipe(Effect.provide([identityLayer(yield* authority.context({ path: "/server" })), log.layer]))
  if (address._tag !== "TcpAddress") return yield* Effect.dieMessage("expected a TCP address")
  const client = yield* startClient(yield* authority.context({ path: "/client" }))
  const channel = yield* client.channel({ port: address.port, peer: authority.id("/server") })
  return { authority, channel, log, port: address.port }
})

for (const name of Object.keys(frameworks)) {
  describe(`an app of ${name} behind the gate`, () => {
    it.scoped("knows its callers, reads bodies, and each request is on record as it was answered", () =>
      Effect.gen(function* () {
        const { authority, channel, log } = yield* setUp(name)
        for (let round = 0; round < 2; round++) {
          const whoami = yield* channel.get("/whoami")
          expect(yield* whoami.text).toBe(authority.id("/client"))
          const body = HttpBody.unsafeJson({ round, text: "x".repeat(50_000) })
          const echo = yield* channel.post("/echo", { body })
          expect(yield* echo.json).toEqual({ round, text: "x".repeat(50_000) })
        }
        expect((yield* channel.get("/fails")).status).toBe(500)
        yield* log.nth("RequestEnded", 4)
        const ended = log.all("RequestEnded")
        expect(ended.map(({ path, status, error }) => ({ path, status, error }))).toEqual([
          { path: "/whoami", status: 200, error: undefined },
          { path: "/echo", status: 200, error: undefined },
          { path: "/whoami", status: 200, error: undefined },
          { path: "/echo", status: 200, error: undefined },
          { path: "/fails", status: 500, error: undefined }
        ])
        expect(log.all("ConnectionEstablished")).toHaveLength(1)
      })
    )

    it.scoped("cuts a response that is shorter than its head says, and has that on record", () =>
      Effect.gen(function* () {
        const { channel, log } = yield* setUp(name)
        const error = yield* failure(Effect.flatMap(channel.get("/short"), (response) => response.text))
        // Where the whole of it was given at once, not even its head is sent.
        expect("cause" in error && error._tag === "ResponseError" ? error.cause : error).toMatchObject({
          _tag: "ConnectionError"
        })
        expect(yield* log.nth("RequestEnded")).toMatchObject({ error: "ResponseLengthError" })
        yield* log.nth("ConnectionClosed")
      })
    )

    it.scoped("has a request on record whose client leaves before it is answered", () =>
      Effect.gen(function* () {
        const { authority, log, port } = yield* setUp(name)
        const client = yield* hostileClient(port, yield* authority.issueRaw({ path: "/client" }), {
          request: "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        }).pipe(Effect.fork)
        yield* log.nth("RequestStarted")
        yield* client.interruptAsFork(client.id())
        expect(yield* log.nth("RequestEnded")).toMatchObject({ error: "Interrupted" })
        yield* log.nth("ConnectionClosed")
      })
    )
  })
}
