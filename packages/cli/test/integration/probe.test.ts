import { IdentityProvider, PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, PeerIdentity } from "@agentweave/transport"
import { NodeSecureServer } from "@agentweave/transport-node"
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { identityFiles, run } from "../commandLine.js"

/** A server that serves `web` alone, and the files of `web` and of a stranger. */
const setUp = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const router = HttpRouter.empty.pipe(
    HttpRouter.get(
      "/hello",
      Effect.map(PeerIdentity.caller, ({ spiffeId }) => HttpServerResponse.text(`hello ${spiffeId}`))
    )
  )
  const authorize = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web"))
  const server = yield* Layer.build(
    HttpServer.serve(router).pipe(
      Layer.provideMerge(NodeSecureServer.layer({ port: 0, host: "127.0.0.1", authorize })),
      Layer.provide(IdentityProvider.layerStatic(yield* authority.context({ path: "/api" }))),
      Layer.provide(AuditLog.layerMemory([]))
    )
  )
  const { address } = Context.get(server, HttpServer.HttpServer)
  if (address._tag !== "TcpAddress") return yield* Effect.dieMessage("expected a port")
  return {
    address: `127.0.0.1:${address.port}`,
    web: yield* identityFiles(authority, "web"),
    stranger: yield* identityFiles(authority, "stranger")
  }
})

const expected = ["--expect", "spiffe://example.org/api"]

describe("agentweave probe", () => {
  it.scopedLive("says of a verified peer who it is, how it was reached and what it answered", () =>
    Effect.gen(function* () {
      const { address, web } = yield* setUp
      const { exitCode, out } = yield* run(["probe", address, ...expected, ...web, "--path", "/hello"])
      expect(exitCode).toBe(0)
      expect(out).toMatch(/^handshake {2}[\d.]+ ms with 127\.0\.0\.1:\d+, TLSv1\.3, TLS_/)
      expect(out).toContain("peer       spiffe://example.org/api, serial ")
      expect(out).toContain("we are     spiffe://example.org/web, serial ")
      expect(out).toMatch(/request {4}GET \/hello: 200 after [\d.]+ ms/)

      const json = yield* run(["probe", "--json", ...expected, ...web, address])
      expect(json.exitCode).toBe(0)
      expect(JSON.parse(json.out)).toMatchObject({
        address,
        accepted: true,
        connection: { peerId: "spiffe://example.org/api", tlsVersion: "TLSv1.3" },
        response: { status: 404 }
      })
    })
  )

  it.scopedLive("exits with 1 for another peer than expected, for a caller that is refused, and where nobody is", () =>
    Effect.gen(function* () {
      const { address, stranger, web } = yield* setUp
      const other = yield* run(["probe", address, "--expect", "spiffe://example.org/billing", ...web, "--json"])
      expect(other.exitCode).toBe(1)
      expect(JSON.parse(other.out)).toMatchObject({
        accepted: false,
        refused: { reason: "UnexpectedPeer", actualId: "spiffe://example.org/api" },
        error: { _tag: "PeerVerificationError", reason: "UnexpectedPeer" }
      })

      const refused = yield* run(["probe", address, ...expected, ...stranger])
      expect(refused.exitCode).toBe(1)
      expect(refused.out).toContain("IdentityError: LocalCertificateRefused")

      const nobody = yield* run(["probe", "127.0.0.1:1", ...expected, ...web])
      expect(nobody.exitCode).toBe(1)
      expect(nobody.out).toContain("ConnectionError: Refused")
    })
  )
})
