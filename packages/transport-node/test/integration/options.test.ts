import { IdentityProvider, PeerMatcher, TrustDomain } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog, type Connector, type InvalidConfigError } from "@agentweave/transport"
import {
  FederatedBundles,
  NodeAuditLog,
  NodeConnector,
  NodeIdentity,
  NodeSecureAgent,
  NodeSecureServer,
  NodeSecureSocket,
  NodeSecureSocketServer,
  NodeSecureWebSocket
} from "@agentweave/transport-node"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, type Scope } from "effect"

const files = { certificate: "/nowhere/svid.pem", key: "/nowhere/key.pem", bundle: "/nowhere/bundle.pem" }
const authorize = PeerMatcher.memberOf(TrustDomain.make("example.org"))
const peer = "spiffe://example.org/db"
const web = { trustDomain: "partner.test", url: "https://partner.test/bundle", profile: "https_web" } as const

type Maker = (
  options: object
) => Effect.Effect<
  unknown,
  unknown,
  IdentityProvider.IdentityProvider | AuditLog.AuditLog | Connector.Connector | Scope.Scope
>

/** Everything of this package that takes options, made from options that may be anything. */
const makers = {
  NodeSecureServer: (options: object) => Layer.build(NodeSecureServer.layer({ port: 0, authorize, ...options })),
  NodeSecureSocketServer: (options: object) =>
    Layer.build(NodeSecureSocketServer.layer({ port: 0, authorize, ...options })),
  NodeSecureAgent: (options: object) => NodeSecureAgent.make({ peer, ...options }),
  NodeSecureWebSocket: (options: object) => NodeSecureWebSocket.make({ peer, url: "wss://feed.test/", ...options }),
  SecureSocket: (options: object) => NodeSecureSocket.makeFactory({ peer, host: "db.test", port: 5432, ...options }),
  NodeAuditLog: (options: object) => Layer.build(NodeAuditLog.layerFile({ path: "/nowhere/audit", ...options })),
  FederatedBundles: (options: object) => Layer.build(FederatedBundles.layer({ endpoints: [], ...options })),
  BundleEndpoint: (options: object) => Layer.build(FederatedBundles.layer({ endpoints: [{ ...web, ...options }] })),
  NodeIdentity: (options: object) => Layer.build(NodeIdentity.layerFiles({ ...files, ...options }))
} satisfies Record<string, Maker>

const notNegative = "expected a duration that is not negative"
const noDuration = 'expected a duration such as "30 seconds"'

const refusals: ReadonlyArray<readonly [of: keyof typeof makers, field: string, options: object, expected: string]> = [
  ["NodeSecureServer", "gracefulShutdownTimeout", { gracefulShutdownTimeout: "-5 seconds" }, notNegative],
  ["NodeSecureServer", "gracefulShutdownTimeout", { gracefulShutdownTimeout: "soon" }, noDuration],
  ["NodeSecureServer", "keepAliveTimeout", { keepAliveTimeout: -1 }, notNegative],
  ["NodeSecureServer", "keepAliveTimeout", { keepAliveTimeout: 0 }, "expected a positive, finite duration"],
  ["NodeSecureServer", "handshakeTimeout", { handshakeTimeout: "11 seconds" }, "and at most 10s"],
  ["NodeSecureServer", "maxConnectionAge", { maxConnectionAge: Number.NaN }, notNegative],
  ["NodeSecureServer", "port", { port: 70_000 }, "expected an integer of at least 0 and at most 65535"],
  ["NodeSecureServer", "authorize", { authorize: { _tag: "Any" } }, "expected a PeerMatcher"],
  ["NodeSecureServer", "tlsMinVersion", { tlsMinVersion: "TLSv1.1" }, 'expected "TLSv1.2" or "TLSv1.3"'],
  ["NodeSecureServer", "tlsMaxVersion", { tlsMaxVersion: "TLSv1.2" }, "expected a version of at least tlsMinVersion"],
  ["NodeSecureServer", "rejectUnauthorized", { rejectUnauthorized: false }, "expected no field of this name"],
  ["NodeSecureSocketServer", "maxConnectionAge", { maxConnectionAge: Number.NaN }, notNegative],
  ["NodeSecureSocketServer", "authorize", { authorize: { _tag: "Any" } }, "expected a PeerMatcher"],
  ["NodeSecureSocketServer", "tlsMaxVersion", { tlsMaxVersion: "TLSv1.2" }, "expected a version of at least"],
  ["NodeSecureSocketServer", "rejectUnauthorized", { rejectUnauthorized: false }, "expected no field of this name"],
  ["NodeSecureAgent", "origin", { origin: "http://db.test" }, "expected an https: origin"],
  ["NodeSecureAgent", "origin", { origin: "https://db.test/path" }, "expected an https: origin"],
  ["NodeSecureAgent", "maxSockets", { maxSockets: 0 }, "expected an integer of at least 1"],
  ["NodeSecureAgent", "maxFreeSockets", { maxFreeSockets: -1 }, "expected an integer of at least 0"],
  ["NodeSecureAgent", "rejectUnauthorized", { rejectUnauthorized: false }, "expected no field of this name"],
  ["NodeSecureWebSocket", "url", { url: "ws://feed.test/" }, "expected a wss: URL"],
  ["NodeSecureWebSocket", "url", { url: "wss://user@feed.test/" }, "expected a wss: URL"],
  ["NodeSecureWebSocket", "rejectUnauthorized", { rejectUnauthorized: false }, "expected no field of this name"],
  ["SecureSocket", "port", { port: 70_000 }, "expected an integer of at least"],
  ["SecureSocket", "ca", { ca: "" }, "expected no field of this name"],
  ["NodeAuditLog", "checkpointEvery", { checkpointEvery: Number.NaN }, "expected an integer of at least 1"],
  ["NodeAuditLog", "maxPending", { maxPending: -1 }, "expected an integer of at least 0"],
  ["NodeAuditLog", "flushWindow", { flushWindow: "-1 seconds" }, notNegative],
  ["NodeAuditLog", "whenFul", { whenFul: "FailClosed" }, "expected no field of this name"],
  ["FederatedBundles", "refreshInterval", { refreshInterval: -1 }, notNegative],
  ["FederatedBundles", "maxBytes", { maxBytes: Number.NaN }, "expected an integer of at least 1"],
  [
    "FederatedBundles",
    "maxRefreshInterval",
    { maxRefreshInterval: "2 seconds" },
    "expected at least minRefreshInterval"
  ],
  ["FederatedBundles", "endpoint", { endpoint: web }, "expected no field of this name"],
  ["BundleEndpoint", "profile", { profile: "http" }, 'expected one of "https_web"'],
  ["BundleEndpoint", "endpointId", { endpointId: "spiffe://partner.test/x" }, "expected no field of this name"],
  ["BundleEndpoint", "url", { url: "http://partner.test/bundle" }, "https"],
  ["NodeIdentity", "pollInterval", { pollInterval: "soon" }, noDuration],
  ["NodeIdentity", "debounce", { debounce: -1 }, notNegative],
  ["NodeIdentity", "key", { key: "" }, "expected a text, got an empty one"],
  ["NodeIdentity", "chain", { chain: "/nowhere" }, "expected no field of this name"]
]

describe("options that break a rule are refused with the name of the field, before anything is opened", () => {
  for (const [of, field, options, expected] of refusals) {
    it.scoped(`${of}: ${JSON.stringify(options)}`, () =>
      Effect.gen(function* () {
        const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
        const services = Layer.merge(
          IdentityProvider.layerStatic(yield* authority.context({ path: "/api" })),
          AuditLog.layerMemory([])
        ).pipe((services) => Layer.provideMerge(NodeConnector.layer, services))
        const make: Maker = makers[of]
        const error = yield* Effect.flip(Effect.scoped(Effect.provide(make(options), services)))
        expect(error).toMatchObject({ _tag: "InvalidConfigError", config: of, field })
        expect((error as InvalidConfigError.InvalidConfigError).description).toContain(expected)
      })
    )
  }
})
