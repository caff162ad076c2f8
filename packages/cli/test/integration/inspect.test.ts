import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { Activity, Inspector, Snapshot } from "@agentweave/inspector"
import { IdentityProvider, PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { CircuitBreakerRegistry } from "@agentweave/transport"
import { NodeSecureServer } from "@agentweave/transport-node"
import { HttpRouter, HttpServer } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, LogLevel, Option, Queue, Schema, Scope } from "effect"
import { api, ended, established, refused } from "../../../inspector/test/events.js"
import { processOf } from "../../../inspector/test/integration/world.js"
import { identityFiles, launch, run } from "../commandLine.js"

const escapeCode = String.fromCharCode(27)

/** A process with some life behind it, and a path that would steer a terminal. */
const lively = Effect.gen(function* () {
  const { unsafeRecord } = yield* Activity.Activity
  const now = Date.now()
  unsafeRecord(established({ time: now - 60_000 }))
  unsafeRecord(ended({ time: now - 5_000, path: `/in${escapeCode}[2Jvoices`, status: 503 }))
  unsafeRecord(refused({ time: now - 2_000, reason: "UnexpectedPeer", side: "Server" }))
  const breaker = yield* Effect.flatMap(CircuitBreakerRegistry.CircuitBreakerRegistry, ({ get }) => get(api))
  yield* Effect.ignore(breaker.protect(Effect.fail("down")))
})

/** The inspector of such a process on loopback, until its scope ends or it is ended. */
const inspected = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const process = processOf(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const layer = Layer.provideMerge(Inspector.layer({ port: 0, interval: "100 millis" }), process)
  const services = yield* Layer.buildWithScope(layer, scope)
  yield* Effect.provide(lively, services)
  const url = Option.getOrThrow(Context.get(services, Inspector.Inspector).url)
  return { url, services, end: Scope.close(scope, Exit.void) }
}).pipe(Logger.withMinimumLogLevel(LogLevel.None))

/** What answers everything with one text, and is no inspector. */
const other = (status: number, text: string) =>
  Effect.acquireRelease(
    Effect.async<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((_, response) => {
        response.writeHead(status, { connection: "close" }).end(text)
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.async<void>((resume) => void server.close(() => resume(Effect.void)))
  ).pipe(Effect.map((server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}/`))

const decode = Schema.decodeUnknown(Snapshot.FromJson)

describe("agentweave inspect", () => {
  it.scopedLive(
    "shows who a process of this machine is, its peers, refusals and requests, and nothing that steers",
    () =>
      Effect.gen(function* () {
        const { url } = yield* inspected
        const { err, exitCode, out } = yield* run(["inspect", url])
        expect({ err, exitCode }).toStrictEqual({ err: "", exitCode: 0 })
        expect(out).toMatch(
          /^spiffe:\/\/example\.org\/web\nidentity {2}Fresh, .* left, serial [0-9A-F]+, on record for /
        )
        expect(out).toContain("bundles   example.org (1 authority)")
        expect(out).toMatch(/requests {2}out: .* 100\.0 % failed, median .*, 1 since the start/)
        expect(out).toMatch(
          /1 peer\n {2}spiffe:\/\/example\.org\/api\n {4}1 connection; circuit open, 1 failure in a row; /
        )
        expect(out).toMatch(
          /1 refused since the start\n {2}\S+ m?s ago {2}PeerVerificationError UnexpectedPeer, called from/
        )
        expect(out).toContain("    The peer proved an identity, but another one than expected.")
        expect(out).toMatch(/503 {2}GET \/in\\u\{1b\}\[2Jvoices to spiffe:\/\/example\.org\/api, 12 ms/)
        expect(out).not.toContain(escapeCode)
        expect((yield* run(["inspect", url], { hasColours: true })).out).toContain(
          `${escapeCode}[32mFresh${escapeCode}`
        )
      })
  )

  it.scopedLive("gives the inspector's own JSON", () =>
    Effect.gen(function* () {
      const { url } = yield* inspected
      const { exitCode, out } = yield* run(["inspect", "--json", url])
      expect(exitCode).toBe(0)
      expect(out).not.toContain("\n")
      expect(yield* decode(out)).toMatchObject({ version: 1, totalRefused: 1, identity: { freshness: "Fresh" } })
    })
  )

  it.scopedLive("goes on with each snapshot, and exits with 1 when the process ends", () =>
    Effect.gen(function* () {
      const { end, services, url } = yield* inspected
      const { exitCode, lines } = yield* launch(["inspect", url, "--watch", "--json"])
      const next = Effect.flatMap(Queue.take(lines), decode)
      const first = yield* next
      const { unsafeRecord } = Context.get(services, Activity.Activity)
      unsafeRecord(refused())
      let latest = first
      while (latest.totalRefused === 1) latest = yield* next
      expect(latest.totalRefused).toBe(2)
      expect(latest.time).toBeGreaterThan(first.time)
      yield* end
      expect(yield* exitCode).toBe(1)
      const all = yield* Queue.takeAll(lines)
      expect(JSON.parse(Array.from(all).at(-1) ?? "").error).toMatchObject({ _tag: "InspectorError", reason: "Ended" })
    })
  )

  it.scopedLive(
    "draws over its picture on a terminal, cut to its height, and shows one behind the other elsewhere",
    () =>
      Effect.gen(function* () {
        const { url } = yield* inspected
        const terminal = yield* launch(["inspect", url, "--watch"], { rows: () => 6 })
        const [first, second] = [yield* Queue.take(terminal.lines), yield* Queue.take(terminal.lines)]
        expect(first.startsWith(`${escapeCode}[2J${escapeCode}[H`)).toBe(true)
        expect(second.startsWith(`${escapeCode}[H`)).toBe(true)
        expect(second.split("\n")).toHaveLength(5)
        expect(second).toMatch(/\.\.\. \d+ more lines: a taller terminal, or --json/)

        const file = yield* launch(["inspect", url, "--watch"])
        expect(yield* Queue.take(file.lines)).toMatch(/^spiffe:\/\/example\.org\/web\n/)
        expect(yield* Queue.take(file.lines)).toMatch(/^\nspiffe:\/\/example\.org\/web\n/)
      })
  )

  it.scopedLive("exits with 1 and says what is there where no inspector answers", () =>
    Effect.gen(function* () {
      const cases = [
        ["http://127.0.0.1:1/", "Unreachable", "ECONNREFUSED"],
        [yield* other(404, "nothing"), "Refused", "status 404"],
        [yield* other(421, '{"error":"expected a Host of this machine"}'), "Refused", ": expected a Host of this"],
        [yield* other(200, "<html>"), "Unreadable", "no JSON"],
        [yield* other(200, '{"version":2}'), "Unreadable", "version 2"],
        [yield* other(200, '{"version":1}'), "Unreadable", "JSON of another form"]
      ] as const
      for (const [url, reason, said] of cases) {
        const json = yield* run(["inspect", url, "--json"])
        expect(json, url).toMatchObject({ exitCode: 1, err: "" })
        expect(JSON.parse(json.out).error, url).toMatchObject({ _tag: "InspectorError", reason })
        const { exitCode, out } = yield* run(["inspect", url])
        expect(exitCode, url).toBe(1)
        expect(out, url).toContain(said)
      }
      // Its answers to requests for events are no events, and end.
      expect(yield* run(["inspect", "--watch", yield* other(200, "{}")])).toMatchObject({ exitCode: 1 })
    })
  )

  it.scopedLive("shows a process behind a secure server to the peers that it authorises", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const process = processOf(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
      const authorize = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/operator"))
      const router = HttpRouter.empty.pipe(HttpRouter.mountApp("/inspector", Inspector.app))
      const server = yield* Layer.build(
        HttpServer.serve(router).pipe(
          Layer.provide(Inspector.layerService({ interval: "100 millis" })),
          Layer.provideMerge(NodeSecureServer.layer({ port: 0, host: "127.0.0.1", authorize })),
          Layer.provide(process)
        )
      )
      const { address } = Context.get(server, HttpServer.HttpServer)
      const url = `https://127.0.0.1:${address._tag === "TcpAddress" ? address.port : 0}/inspector`
      const asked = ["inspect", url, "--expect", "spiffe://example.org/web"]
      const operator = yield* identityFiles(authority, "operator")
      const once = yield* run([...asked, ...operator])
      expect(once.exitCode).toBe(0)
      expect(once.out).toContain("spiffe://example.org/operator\n    1 connection; seen")
      const watched = yield* launch([...asked, ...operator, "--watch"])
      expect(yield* Queue.take(watched.lines)).toMatch(/^spiffe:\/\/example\.org\/web\n/)

      const stranger = yield* run([...asked, ...(yield* identityFiles(authority, "stranger")), "--json"])
      expect(stranger.exitCode).toBe(1)
      expect(JSON.parse(stranger.out).error).toMatchObject({ _tag: "IdentityError", reason: "LocalCertificateRefused" })
      const wrong = yield* run(["inspect", url, "--expect", "spiffe://example.org/api", ...operator])
      expect(wrong.exitCode).toBe(1)
      expect(wrong.out).toContain("PeerVerificationError: UnexpectedPeer")
    })
  )
})
