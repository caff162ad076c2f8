import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { connect } from "node:tls"
import { IdentityProvider, PeerMatcher, SpiffeId, X509Svid } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { NodeAuditLog, NodeSecureServer } from "@agentweave/transport-node"
import { HttpServer, HttpServerResponse } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { directory, identityFiles, run } from "../commandLine.js"

const record = (seq: number, event: object) => `${JSON.stringify({ seq, event })}\n`

const refused = (time: number, fields: object = {}) => ({
  _tag: "ConnectionRefused",
  time,
  side: "Server",
  connectionId: "c1",
  address: "10.0.0.7:50000",
  expectedId: "spiffe://example.org/web",
  actualId: null,
  error: "PeerVerificationError",
  reason: "NoCertificate",
  description: "expected a certificate, got none",
  durationMillis: 1,
  ...fields
})

const file = (events: ReadonlyArray<object>) =>
  Effect.map(directory, (folder) => {
    const path = join(folder, "audit.ndjson")
    writeFileSync(path, events.map((event, seq) => record(seq, event)).join(""))
    return path
  })

/** A handshake of a client that the server is to refuse, to its end. */
const handshake = (port: number, svid: X509Svid.X509Svid) =>
  Effect.async<void>((resume) => {
    const socket = connect({
      host: "127.0.0.1",
      port,
      cert: X509Svid.certificatesPem(svid),
      key: Redacted.value(X509Svid.privateKeyPem(svid)),
      // The server is not what is tested here.
      rejectUnauthorized: false
    })
    socket.on("error", () => {})
    socket.on("data", () => {})
    socket.once("close", () => resume(Effect.void))
  })

describe("agentweave explain --audit", () => {
  it.scopedLive("explains why a server refused the certificates of its clients, from what it has put on record", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "audit.ndjson")
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const stranger = yield* (yield* DevAuthority.make({ trustDomain: "example.org" })).issue({ path: "/web" })
      const other = yield* identityFiles(authority, "shop")
      yield* Effect.gen(function* () {
        const authorize = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web"))
        const server = yield* Layer.build(
          HttpServer.serve(HttpServerResponse.text("hello")).pipe(
            Layer.provideMerge(NodeSecureServer.layer({ port: 0, host: "127.0.0.1", authorize })),
            Layer.provide(NodeAuditLog.layerFile({ path })),
            Layer.provide(IdentityProvider.layerStatic(yield* authority.context({ path: "/api" })))
          )
        )
        const { address } = Context.get(server, HttpServer.HttpServer)
        const port = address._tag === "TcpAddress" ? address.port : 0
        const probe = run(["probe", `127.0.0.1:${port}`, "--expect", "spiffe://example.org/api", ...other])
        expect((yield* probe).exitCode).toBe(1)
        yield* handshake(port, stranger)
        expect((yield* probe).exitCode).toBe(1)
      }).pipe(Effect.scoped)

      const { exitCode, out } = yield* run(["explain", "--audit", path])
      expect(exitCode).toBe(1)
      const unexpected =
        out.split("\n\n").find((block) => block.startsWith("PeerVerificationError UnexpectedPeer")) ?? ""
      expect(unexpected).toMatch(/^PeerVerificationError UnexpectedPeer, 2 times from 20\S+ to 20\S+, as a server\n/)
      expect(unexpected).toContain("  expected   spiffe://example.org/web\n  claimed    spiffe://example.org/shop\n")
      expect(unexpected).toContain("  from       127.0.0.1\n")
      expect(unexpected).toContain("  look first The peer proved an identity, but another one than expected.")
      expect(unexpected).toMatch(
        / --cert CLIENT\.pem --role client --bundle \S+ --expect spiffe:\/\/example\.org\/web$/
      )
      expect(out).toContain("PeerVerificationError UntrustedChain, once at ")
    })
  )

  it.scopedLive("sums what is alike in all files, the newest first, for people and for programs", () =>
    Effect.gen(function* () {
      const first = yield* file([refused(1_000), refused(2_000, { address: "10.0.0.8:50000" })])
      const second = yield* file([
        refused(500, { address: "10.0.0.7:50001" }),
        refused(9_000, { error: "ConnectionError", reason: "Dns", side: "Client", address: "api.internal:8443" }),
        {
          _tag: "ConnectionsRefused",
          time: 3_000,
          side: "Server",
          reason: "ConnectionError HandshakeReset",
          since: 100,
          description: "x",
          count: 812,
          addresses: 3
        },
        { _tag: "SvidRotated" },
        { _tag: "ConnectionRefused", time: "never" }
      ])
      const { exitCode, out } = yield* run(["explain", "--json", "--audit", first, "--audit", second])
      expect(exitCode).toBe(1)
      const { refusals } = JSON.parse(out)
      expect(refusals).toMatchObject([
        {
          reason: "ConnectionError Dns",
          command: "agentweave probe api.internal:8443 --expect spiffe://example.org/web"
        },
        {
          reason: "ConnectionError HandshakeReset",
          count: 812,
          first: "1970-01-01T00:00:00.100Z",
          description: "x",
          hint: expect.stringContaining("before the TLS handshake ended")
        },
        {
          reason: "PeerVerificationError NoCertificate",
          count: 3,
          first: "1970-01-01T00:00:00.500Z",
          last: "1970-01-01T00:00:02.000Z",
          addresses: ["10.0.0.7", "10.0.0.8"],
          hint: "The peer presented no certificate. Check that it is configured with an SVID and speaks mutual TLS."
        }
      ])
    })
  )

  it.scopedLive("a text of a stranger's cannot steer the terminal", () =>
    Effect.gen(function* () {
      const steering = `spiffe://example.org/\u001b[2J\nweb`
      const path = yield* file([refused(0, { actualId: steering, address: steering, description: steering })])
      const { out } = yield* run(["explain", "--audit", path])
      expect(out).not.toContain("\u001b")
      expect(out).toContain("  claimed    spiffe://example.org/\\u{1b}[2J\\u{a}web\n")
    })
  )

  it.scopedLive("exits with 0 where nothing was refused, and with 2 for what is no audit file", () =>
    Effect.gen(function* () {
      const quiet = yield* run(["explain", "--audit", yield* file([{ _tag: "SvidRotated", time: 0 }])])
      expect(quiet).toMatchObject({ exitCode: 0, out: "no refusal on record" })
      const none = yield* run(["explain", "--audit", yield* file([]), "--json"])
      expect(none.exitCode).toBe(2)
      expect(JSON.parse(none.out).error).toMatchObject({ _tag: "UsageError" })
    })
  )
})
