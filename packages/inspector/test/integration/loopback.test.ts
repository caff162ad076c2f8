import { networkInterfaces } from "node:os"
import { platform } from "node:process"
import { Activity } from "@agentweave/inspector"
import { CircuitBreakerRegistry } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Exit, Scope, TestClock } from "effect"
import { api, ended, established, refused } from "../events.js"
import { call, openStream } from "./http.js"
import { decode, start } from "./world.js"

const open = Effect.flatMap(CircuitBreakerRegistry.CircuitBreakerRegistry, (registry) =>
  Effect.flatMap(registry.get(api), (breaker) => Effect.ignore(breaker.protect(Effect.fail("down"))))
)

const stateOf = Effect.flatMap(CircuitBreakerRegistry.CircuitBreakerRegistry, (registry) =>
  Effect.map(registry.metrics, (all) => all.get(api)?.state)
)

/** IPv4 addresses of this machine beside 127.0.0.1. On Linux all of 127.0.0.0/8 is its own. */
const otherAddresses = [
  ...Object.values(networkInterfaces()).flatMap((addresses = []) =>
    addresses.filter(({ family, internal }) => family === "IPv4" && !internal).map(({ address }) => address)
  ),
  ...(platform === "linux" ? ["127.0.0.2"] : [])
]

describe("the inspector on loopback", () => {
  it.scoped("answers with a snapshot of the process that its schema reads", () =>
    Effect.gen(function* () {
      const { context, port, services } = yield* start()
      yield* Effect.provide(open, services)
      const { unsafeRecord } = yield* Effect.provide(Activity.Activity, services)
      for (const event of [established(), ended(), refused()]) unsafeRecord(event)
      const answer = yield* call({ port, path: "/api/snapshot" })
      assert.strictEqual(answer.status, 200)
      assert.strictEqual(answer.headers["content-type"], "application/json")
      assert.strictEqual(answer.headers["cache-control"], "no-store")
      const snapshot = yield* decode(answer.body)
      assert.deepInclude(snapshot, { version: 1, canReset: false, pool: null, totalRefused: 1, morePeers: 0 })
      assert.strictEqual(snapshot.identity.freshness, "Fresh")
      assert.deepInclude(snapshot.identity.svid, {
        spiffeId: "spiffe://example.org/web",
        serialNumber: context.svid.serialNumber,
        notAfter: context.svid.notAfter
      })
      assert.deepStrictEqual(
        snapshot.identity.bundles.map(({ authorities, trustDomain }) => [trustDomain, authorities]),
        [["example.org", 1]]
      )
      assert.deepStrictEqual(
        snapshot.identity.history.map(({ _tag }) => _tag),
        ["BundleRotated", "SvidRotated"]
      )
      const [peer] = snapshot.peers
      assert.deepInclude(peer, { id: api, openConnections: 1, pool: null, retryBudget: null })
      assert.deepInclude(peer?.breaker, { state: "Open", totalFailures: 1 })
    })
  )

  it.scoped("streams a snapshot at once and then one each interval, until its scope ends", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { port } = yield* Scope.extend(start({ interval: "1 second" }), scope)
      const stream = yield* openStream({ port })
      assert.strictEqual(stream.headers["content-type"], "text/event-stream")
      const first = yield* Effect.flatMap(stream.next, decode)
      yield* TestClock.adjust("1 second")
      const second = yield* Effect.flatMap(stream.next, decode)
      assert.strictEqual(second.time - first.time, 1_000)
      yield* Scope.close(scope, Exit.void)
      yield* stream.ended
      assert.isTrue(Either.isLeft(yield* Effect.either(call({ port, path: "/api/snapshot" }))), "nothing listens now")
    })
  )

  it.scoped("streams share their snapshots: readers that come within half an interval read the same one", () =>
    Effect.gen(function* () {
      const { inspector, port } = yield* start({ interval: "2 seconds" })
      const first = yield* (yield* openStream({ port })).next
      yield* TestClock.adjust("900 millis")
      assert.strictEqual(yield* (yield* openStream({ port })).next, first)
      assert.strictEqual((yield* call({ port, path: "/api/snapshot" })).body, first)
      yield* TestClock.adjust("200 millis")
      assert.notStrictEqual(yield* (yield* openStream({ port })).next, first)
      yield* inspector.snapshot
    })
  )

  it.scoped("answers the ninth stream with 503, and has a place again when one has ended", () =>
    Effect.gen(function* () {
      const { inspector, port } = yield* start()
      const streams = yield* Effect.forEach(Array.from({ length: 8 }), () => openStream({ port }))
      assert.deepStrictEqual(
        streams.map(({ status }) => status),
        Array.from({ length: 8 }, () => 200)
      )
      const ninth = yield* call({ port, path: "/api/events" })
      assert.strictEqual(ninth.status, 503)
      assert.match(ninth.body, /at most 8 streams/)
      yield* Effect.forEach(streams, ({ next }) => next, { discard: true })
      yield* inspector.endStreams
      yield* Effect.forEach(streams, ({ ended }) => ended, { discard: true })
      const again = yield* openStream({ port }).pipe(
        Effect.filterOrFail(({ status }) => status === 200),
        Effect.retry({ while: () => true })
      )
      yield* again.next
    })
  )

  it.scoped("a reader that goes away leaves its place to the next one", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      const streams = yield* Effect.forEach(Array.from({ length: 8 }), () => openStream({ port }))
      const [first] = streams
      yield* first?.close ?? Effect.void
      const next = yield* openStream({ port }).pipe(
        Effect.filterOrFail(({ status }) => status === 200),
        Effect.retry({ while: () => true })
      )
      yield* next.next
    })
  )

  it.scoped("refuses a name that resolves to this machine, so that no site can read it (DNS rebinding)", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      const withHost = (host: string) => call({ port, path: "/api/snapshot", headers: { host } })
      for (const host of [
        "evil.example",
        `evil.example:${port}`,
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::2]"
      ]) {
        const answer = yield* withHost(host)
        assert.strictEqual(answer.status, 421, host)
        assert.match(answer.body, /expected a Host of this machine/)
      }
      for (const host of [`127.0.0.1:${port}`, "localhost:8080", "LOCALHOST", "[::1]:9471"]) {
        assert.strictEqual((yield* withHost(host)).status, 200, host)
      }
    })
  )

  it.scoped("refuses requests that a browser makes for another site, or for another port of this machine", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      const own = `http://127.0.0.1:${port}`
      const get = (headers: Record<string, string>) => call({ port, path: "/api/events", headers })
      for (const headers of [
        { origin: "https://evil.example" },
        { origin: "null" },
        { origin: `http://127.0.0.1:${port + 1}` },
        { origin: `https://127.0.0.1:${port}` },
        { "sec-fetch-site": "cross-site" },
        { "sec-fetch-site": "same-site" }
      ]) {
        assert.strictEqual((yield* get(headers)).status, 403, JSON.stringify(headers))
      }
      for (const site of ["same-origin", "none"]) {
        const answer = yield* call({ port, path: "/api/snapshot", headers: { origin: own, "sec-fetch-site": site } })
        assert.strictEqual(answer.status, 200, site)
      }
    })
  )

  it.scoped("says what it answers to where the path or the method is another", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      assert.strictEqual((yield* call({ port, path: "/metrics" })).status, 404)
      const post = yield* call({ port, path: "/api/snapshot", method: "POST" })
      assert.deepStrictEqual([post.status, post.headers.allow], [405, "GET"])
      const get = yield* call({ port, path: "/api/reset" })
      assert.deepStrictEqual([get.status, get.headers.allow], [405, "POST"])
    })
  )

  it.scoped("listens at 127.0.0.1 by default, and at no other address of the machine", () =>
    Effect.gen(function* () {
      const { port, url } = yield* start()
      assert.strictEqual(url.hostname, "127.0.0.1")
      for (const host of otherAddresses) {
        const answer = yield* Effect.either(call({ host, port, path: "/api/snapshot" }))
        assert.isTrue(Either.isLeft(answer), host)
      }
    })
  )

  it.effect("listens on loopback alone: any other host is refused when it is built", () =>
    Effect.gen(function* () {
      const options = JSON.parse('{"port":0,"host":"0.0.0.0"}')
      const error = yield* Effect.flip(start(options))
      assert.deepInclude(error, { _tag: "InvalidConfigError", config: "Inspector", field: "host" })
    }).pipe(Effect.scoped)
  )
})

const reset = (port: number, body: string, headers: Record<string, string> = {}) =>
  call({ port, path: "/api/reset", method: "POST", body, headers: { "content-type": "application/json", ...headers } })

describe("the reset of a breaker", () => {
  const body = JSON.stringify({ peer: api })

  it.scoped("is refused unless the option is on", () =>
    Effect.gen(function* () {
      const { port, services } = yield* start()
      yield* Effect.provide(open, services)
      const answer = yield* reset(port, body)
      assert.strictEqual(answer.status, 403)
      assert.match(answer.body, /the option reset/)
      assert.strictEqual(yield* Effect.provide(stateOf, services), "Open")
    })
  )

  it.scoped("closes the breaker of the peer that is named, and is on record", () =>
    Effect.gen(function* () {
      const { inspector, port, services } = yield* start({ reset: true })
      yield* Effect.provide(open, services)
      assert.isTrue((yield* inspector.snapshot).canReset)
      const answer = yield* reset(port, body, {
        "sec-fetch-site": "same-origin",
        origin: `http://127.0.0.1:${port}`,
        host: `127.0.0.1:${port}`
      })
      assert.strictEqual(answer.status, 200)
      assert.strictEqual(yield* Effect.provide(stateOf, services), "Closed")
      yield* TestClock.adjust("1 second")
      assert.deepInclude((yield* inspector.snapshot).events[0], {
        _tag: "CircuitStateChanged",
        target: api,
        from: "Open",
        to: "Closed"
      })
    })
  )

  it.scoped("is refused for what a page of another site can send", () =>
    Effect.gen(function* () {
      const { port, services } = yield* start({ reset: true })
      yield* Effect.provide(open, services)
      const refusals = [
        yield* reset(port, body, { "content-type": "text/plain" }),
        yield* reset(port, body, { "content-type": "application/x-www-form-urlencoded" }),
        yield* reset(port, body, { "sec-fetch-site": "cross-site" }),
        yield* reset(port, body, { "sec-fetch-site": "none" }),
        yield* reset(port, body, { origin: "https://evil.example" }),
        yield* reset(port, body, { host: "evil.example" })
      ]
      assert.deepStrictEqual(
        refusals.map(({ status }) => status),
        [415, 415, 403, 403, 403, 421]
      )
      assert.strictEqual(yield* Effect.provide(stateOf, services), "Open")
    })
  )

  it.scoped("makes no breaker for a peer that has none, and reads no body but a small one of its form", () =>
    Effect.gen(function* () {
      const { inspector, port } = yield* start({ reset: true })
      assert.strictEqual((yield* reset(port, JSON.stringify({ peer: "spiffe://example.org/none" }))).status, 404)
      assert.deepStrictEqual((yield* inspector.snapshot).peers, [])
      for (const text of ["", "{", "{}", '{"peer":1}']) {
        assert.strictEqual((yield* reset(port, text)).status, 400, text.slice(0, 20))
      }
      // A body that is too large is cut off while it comes.
      const large = yield* Effect.either(reset(port, JSON.stringify({ peer: api, junk: "x".repeat(100_000) })))
      assert.isTrue(Either.isLeft(large) || large.right.status === 400)
    })
  )
})
