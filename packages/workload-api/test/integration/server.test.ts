import { mkdtemp, rm, stat, writeFile } from "node:fs/promises"
import * as net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { IdentityError, IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority, TestIdentity } from "@agentweave/testkit"
import { WorkloadApiClient, WorkloadApiServer, WorkloadEndpoint, WorkloadMessage } from "@agentweave/workload-api"
import { describe, expect, it } from "@effect/vitest"
import { Client, credentials, Metadata } from "@grpc/grpc-js"
import { Chunk, Deferred, Effect, Exit, Fiber, Layer, Option, Redacted, Scope, Stream } from "effect"
import * as LiveProvider from "../support/liveProvider.js"

const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "workload-api-server-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)
const socketIn = Effect.map(directory, (path) => join(path, "api.sock"))

/** A source with an identity, published. */
const published = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const partner = yield* DevAuthority.make({ trustDomain: "partner.org" })
  const first = yield* authority.context({ hint: "internal", federatesWith: [partner] })
  const identity = yield* TestIdentity.make(first)
  const socketPath = yield* socketIn
  const server = yield* WorkloadApiServer.make({ socketPath, source: identity.provider })
  const client = WorkloadApiClient.make(WorkloadEndpoint.unix(socketPath))
  return { authority, partner, first, identity, socketPath, server, client }
})

type Call =
  | "FetchX509SVID"
  | "FetchX509Bundles"
  | "FetchJWTSVID"
  | "FetchJWTBundles"
  | "ValidateJWTSVID"
  | "FetchWITSVID"
  | "FetchWITBundles"

/** The first answer to a call with this metadata, or how it ends. */
const answerOf = (socketPath: string, call: Call, header: ReadonlyArray<string>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Client(`unix:${socketPath}`, credentials.createInsecure())),
    (client) =>
      Effect.async<Buffer | string>((resume) => {
        const metadata = new Metadata()
        for (const value of header) metadata.add("workload.spiffe.io", value)
        const identity = (bytes: Buffer) => bytes
        client
          .makeServerStreamRequest(`/SpiffeWorkloadAPI/${call}`, identity, identity, Buffer.alloc(0), metadata)
          .on("data", (bytes: Buffer) => resume(Effect.succeed(bytes)))
          .on("error", (error) => resume(Effect.succeed(error.message)))
      }),
    (client) => Effect.sync(() => client.close())
  )

/** How a call with this metadata ends, or that it was answered. */
const outcomeOf = (socketPath: string, call: Call, header: ReadonlyArray<string>) =>
  Effect.map(answerOf(socketPath, call, header), (answer) => (typeof answer === "string" ? answer : "answered"))

describe("calls", () => {
  it.scopedLive("are refused as invalid without the security header, exactly as the standard writes it", () =>
    Effect.gen(function* () {
      const { socketPath } = yield* published
      for (const header of [[], ["True"], ["TRUE"], ["1"], [""], ["true", "true"]]) {
        for (const call of ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles"] as const) {
          expect(yield* outcomeOf(socketPath, call, header)).toMatch(/^3 INVALID_ARGUMENT: .*workload.spiffe.io: true/)
        }
      }
      expect(yield* outcomeOf(socketPath, "FetchX509SVID", ["true"])).toBe("answered")
    })
  )

  it.scopedLive(
    "of the JWT profile are answered by a server that issues none: empty key sets, no SVID, no valid token",
    () =>
      Effect.gen(function* () {
        const { socketPath } = yield* published
        const bytes = yield* answerOf(socketPath, "FetchJWTBundles", ["true"])
        // bundles: the SPIFFE ID of the trust domain, and a JWK set without keys.
        const [id, keys] = ["spiffe://example.org", `{"keys": []}`]
        const entry = [0x0a, id.length, ...Buffer.from(id), 0x12, keys.length, ...Buffer.from(keys)]
        expect(bytes).toStrictEqual(Buffer.from([0x0a, entry.length, ...entry]))
        expect(yield* outcomeOf(socketPath, "FetchJWTSVID", ["true"])).toMatch(/^7 PERMISSION_DENIED: .*no JWT-SVIDs/)
        expect(yield* outcomeOf(socketPath, "ValidateJWTSVID", ["true"])).toMatch(/^3 INVALID_ARGUMENT: .*no keys/)
      })
  )

  it.scopedLive("of the profile that is not offered are Unimplemented", () =>
    Effect.gen(function* () {
      const { socketPath } = yield* published
      for (const call of ["FetchWITSVID", "FetchWITBundles"] as const) {
        expect(yield* outcomeOf(socketPath, call, ["true"])).toMatch(/^12 UNIMPLEMENTED/)
      }
    })
  )

  it.scopedLive(
    "of FetchX509SVID bring the whole snapshot: SVIDs, their bundle, and the others as federated ones",
    () =>
      Effect.gen(function* () {
        const { authority, client, first, partner } = yield* published
        const bytes = yield* Effect.flatten(Stream.runHead(client.x509Svids))
        const { federatedBundles, svids } = yield* WorkloadMessage.decodeX509SvidResponse(Redacted.value(bytes))
        const [svid, ...others] = svids
        expect(others).toStrictEqual([])
        expect(svid).toMatchObject({ spiffeId: "spiffe://example.org/workload", hint: "internal" })
        expect(svid?.x509Svid).toStrictEqual(Uint8Array.from(first.svid.certificates[0]))
        expect(svid?.bundle).toStrictEqual(Uint8Array.from(authority.bundle.authorities[0] ?? []))
        expect(federatedBundles).toStrictEqual(
          new Map([["spiffe://partner.org", Uint8Array.from(partner.bundle.authorities[0] ?? [])]])
        )
      })
  )

  it.scopedLive("of FetchX509Bundles bring the bundles, one a trust domain", () =>
    Effect.gen(function* () {
      const { authority, client, partner } = yield* published
      const bytes = yield* Effect.flatten(Stream.runHead(client.x509Bundles))
      const { bundles } = yield* WorkloadMessage.decodeX509BundlesResponse(Redacted.value(bytes))
      expect(bundles).toStrictEqual(
        new Map([
          ["spiffe://example.org", Uint8Array.from(authority.bundle.authorities[0] ?? [])],
          ["spiffe://partner.org", Uint8Array.from(partner.bundle.authorities[0] ?? [])]
        ])
      )
    })
  )

  it.scopedLive("are told of every change, each caller", () =>
    Effect.gen(function* () {
      const { authority, identity, socketPath } = yield* published
      const callers = yield* Effect.all([1, 2].map(() => LiveProvider.make({ endpoint: `unix://${socketPath}` })))
      for (const caller of callers) yield* caller.nextEvent("Updated")
      const next = yield* authority.context()
      yield* identity.set(next)
      for (const caller of callers) {
        yield* caller.nextEvent("Updated")
        expect((yield* caller.x509Context).svid.fingerprint).toBe(next.svid.fingerprint)
      }
    })
  )

  it.scopedLive(
    "end with PermissionDenied when the identity is withdrawn, with Unavailable when there is none now",
    () =>
      Effect.gen(function* () {
        const { client, identity } = yield* published
        const open = yield* Effect.fork(Effect.flip(Stream.runDrain(client.x509Svids)))
        yield* Stream.runHead(client.x509Svids)
        for (const [reason, status] of [
          ["Withdrawn", "PermissionDenied"],
          ["Unavailable", "Unavailable"],
          ["Expired", "Unavailable"]
        ] as const) {
          yield* identity.fail(new IdentityError.IdentityError({ reason, description: "by the test" }))
          expect((yield* Effect.flip(Stream.runDrain(client.x509Svids))).reason).toBe(status)
          expect((yield* Effect.flip(Stream.runDrain(client.x509Bundles))).reason).toBe(status)
        }
        expect((yield* Fiber.join(open)).reason).toBe("PermissionDenied")
      })
  )

  it.scopedLive("to a source that dies end with an error that says nothing about it", () =>
    Effect.gen(function* () {
      const socketPath = yield* socketIn
      const source = { x509Context: Effect.never, changes: Stream.die(new Error("with a secret")) }
      yield* WorkloadApiServer.make({ socketPath, source })
      const client = WorkloadApiClient.make(WorkloadEndpoint.unix(socketPath))
      const error = yield* Effect.flip(Stream.runDrain(client.x509Svids))
      expect(error).toMatchObject({ reason: "Failed", description: "status INTERNAL: the identity source failed" })
    })
  )

  it.scopedLive("end when the source ends", () =>
    Effect.gen(function* () {
      const { first, socketPath } = yield* published
      const other = `${socketPath}2`
      yield* WorkloadApiServer.make({
        socketPath: other,
        source: { x509Context: Effect.succeed(first), changes: Stream.make(first) }
      })
      const client = WorkloadApiClient.make(WorkloadEndpoint.unix(other))
      expect(Chunk.size(yield* Stream.runCollect(client.x509Svids))).toBe(1)
    })
  )

  it.scopedLive("that their caller leaves are left by the source", () =>
    Effect.gen(function* () {
      const socketPath = yield* socketIn
      const asked = yield* Deferred.make<void>()
      const left = yield* Deferred.make<void>()
      const changes = Stream.acquireRelease(Deferred.succeed(asked, undefined), () => Deferred.succeed(left, undefined))
      const source = { x509Context: Effect.never, changes: Stream.zipRight(changes, Stream.never) }
      yield* WorkloadApiServer.make({ socketPath, source })
      const client = WorkloadApiClient.make(WorkloadEndpoint.unix(socketPath))
      const call = yield* Effect.fork(Stream.runDrain(client.x509Svids))
      yield* Deferred.await(asked)
      yield* Fiber.interrupt(call)
      yield* Deferred.await(left)
    })
  )
})

describe("over TCP", () => {
  it.scopedLive("the client takes an IP address, and no proxy of the environment comes between", () =>
    Effect.gen(function* () {
      const { authority, socketPath } = yield* published
      const relay = yield* Effect.acquireRelease(
        Effect.async<net.Server>((resume) => {
          const server = net.createServer((socket) => {
            const other = net.connect(socketPath)
            socket.on("error", () => other.destroy()).pipe(other)
            other.on("error", () => socket.destroy()).pipe(socket)
          })
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const address = relay.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          const before = process.env["grpc_proxy"]
          process.env["grpc_proxy"] = "http://127.0.0.1:1"
          return before
        }),
        (before) =>
          Effect.sync(() => {
            if (before === undefined) Reflect.deleteProperty(process.env, "grpc_proxy")
            else process.env["grpc_proxy"] = before
          })
      )
      const provider = yield* LiveProvider.make({ endpoint: `tcp://127.0.0.1:${port}` })
      expect((yield* provider.x509Context).bundles.bundles.get(authority.trustDomain)).toStrictEqual(authority.bundle)
    })
  )
})

describe("the socket", () => {
  const source = { x509Context: Effect.never, changes: Stream.never }
  const make = (socketPath: string, mode?: number) => WorkloadApiServer.make({ socketPath, source, mode })
  const modeOf = (path: string) =>
    Effect.map(
      Effect.promise(() => stat(path)),
      ({ mode }) => mode & 0o777
    )
  const exists = (path: string) =>
    Effect.promise(() =>
      stat(path).then(
        () => true,
        () => false
      )
    )

  it.scopedLive("is this user's alone unless told, and the process's mask stays what it was", () =>
    Effect.gen(function* () {
      const socketPath = yield* socketIn
      const mask = process.umask()
      yield* make(socketPath)
      expect(yield* modeOf(socketPath)).toBe(0o600)
      yield* make(`${socketPath}2`, 0o666)
      expect(yield* modeOf(`${socketPath}2`)).toBe(0o666)
      expect(process.umask()).toBe(mask)
    })
  )

  it.scopedLive("is gone when the scope closes, and connections with it", () =>
    Effect.gen(function* () {
      const socketPath = yield* socketIn
      const scope = yield* Scope.make()
      yield* Scope.extend(make(socketPath), scope)
      const client = WorkloadApiClient.make(WorkloadEndpoint.unix(socketPath))
      const call = yield* Effect.fork(Effect.flip(Stream.runDrain(client.x509Svids)))
      yield* Effect.yieldNow()
      yield* Scope.close(scope, Exit.void)
      expect((yield* Fiber.join(call)).reason).toBe("Unavailable")
      expect(yield* exists(socketPath)).toBe(false)
    })
  )

  it.scopedLive("that a dead process left behind is replaced", () =>
    Effect.gen(function* () {
      const socketPath = yield* socketIn
      // Hard-linked before it closes, the file outlives its listener: what a killed process leaves.
      const { link } = yield* Effect.promise(() => import("node:fs/promises"))
      const scope = yield* Scope.make()
      yield* Scope.extend(make(`${socketPath}1`), scope)
      yield* Effect.promise(() => link(`${socketPath}1`, socketPath))
      yield* Scope.close(scope, Exit.void)
      expect(yield* exists(socketPath)).toBe(true)
      yield* make(socketPath)
      const client = WorkloadApiClient.make(WorkloadEndpoint.unix(socketPath))
      const call = yield* Effect.fork(Stream.runDrain(client.x509Svids))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(call)
    })
  )

  it.scopedLive("that another process answers on is left to it", () =>
    Effect.gen(function* () {
      const { client, server, socketPath } = yield* published
      const error = yield* Effect.flip(make(socketPath))
      expect(error).toMatchObject({ _tag: "WorkloadApiServerError", reason: "InUse", socketPath })
      expect(Option.isSome(yield* Stream.runHead(client.x509Svids))).toBe(true)
      expect(server.endpoint).toBe(`unix://${socketPath}`)
    })
  )

  it.scopedLive("is never put in the place of another file", () =>
    Effect.gen(function* () {
      const socketPath = yield* socketIn
      yield* Effect.promise(() => writeFile(socketPath, "precious"))
      expect(yield* Effect.flip(make(socketPath))).toMatchObject({ reason: "NotASocket" })
      expect(yield* exists(socketPath)).toBe(true)
    })
  )

  it.scopedLive("that cannot be opened is a typed error", () =>
    Effect.gen(function* () {
      const socketPath = yield* socketIn
      const error = yield* Effect.flip(make(`${socketPath}/no/such/directory`))
      expect(error).toMatchObject({ reason: "Bind" })
      expect(error.message).toContain("EACCES")
      const long = `${socketPath}${"x".repeat(WorkloadEndpoint.maxPathBytes)}`
      expect((yield* Effect.flip(make(long))).message).toContain(`at most ${WorkloadEndpoint.maxPathBytes} bytes`)
    })
  )

  it.scopedLive("is found under its name, whatever characters are in it", () =>
    Effect.gen(function* () {
      const { first, identity, socketPath } = yield* published
      for (const name of ["a b", "100%25?", "ä#", "x:y", "\\"]) {
        const path = join(socketPath, "..", name)
        const { endpoint } = yield* WorkloadApiServer.make({ socketPath: path, source: identity.provider })
        // As POSIX has it, two slashes in a path are one.
        for (const written of [endpoint, endpoint.replace("unix:///", "unix:////")]) {
          const provider = yield* LiveProvider.make({ endpoint: written })
          expect((yield* provider.x509Context).svid.fingerprint).toBe(first.svid.fingerprint)
        }
      }
    })
  )

  it.scopedLive("as layers: a source's, and the program's own identity", () =>
    Effect.gen(function* () {
      const { authority, identity, socketPath } = yield* published
      const layer = Layer.merge(
        WorkloadApiServer.layer({ socketPath: `${socketPath}1`, source: identity.provider }),
        WorkloadApiServer.layerIdentityProvider({ socketPath: `${socketPath}2` })
      ).pipe(Layer.provide(IdentityProvider.layerStatic(yield* authority.context({ path: "/own" }))))
      yield* Layer.build(layer)
      const idAt = (path: string) =>
        Effect.gen(function* () {
          const provider = yield* LiveProvider.make({ endpoint: `unix://${path}` })
          return (yield* provider.x509Context).svid.spiffeId
        })
      expect(yield* idAt(`${socketPath}1`)).toBe("spiffe://example.org/workload")
      expect(yield* idAt(`${socketPath}2`)).toBe("spiffe://example.org/own")
    })
  )
})
