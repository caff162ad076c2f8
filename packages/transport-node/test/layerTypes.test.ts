import type { IdentityError, IdentityProvider } from "@agentweave/spiffe"
import type { AuditLog, Connector, InvalidConfigError, PeerIdentity } from "@agentweave/transport"
import {
  AuditAnchor,
  FederatedBundles,
  NodeAuditLog,
  NodeConnector,
  NodeDispatcher,
  NodeIdentity,
  NodeSecureServer,
  NodeSecureSocketServer
} from "@agentweave/transport-node"
import type { Etag, HttpClient, HttpPlatform, HttpServer, HttpServerError, SocketServer } from "@effect/platform"
import type { Fetch } from "@effect/platform/FetchHttpClient"
import type { NodeContext } from "@effect/platform-node"
import type { ConfigError, Layer } from "effect"
import { expectTypeOf, it } from "vitest"

type Refused = InvalidConfigError.InvalidConfigError
type Identity = IdentityProvider.IdentityProvider

// Only their types are looked at: `tsc` is what fails here.
const types = (_: () => unknown) => {}

it("the layers of sockets, identities and files provide, refuse and need exactly what they say", () =>
  types(() => {
    expectTypeOf(NodeConnector.layer).toEqualTypeOf<
      Layer.Layer<Connector.Connector, never, Identity | AuditLog.AuditLog>
    >()
    expectTypeOf(NodeSecureServer.layer).returns.toEqualTypeOf<
      Layer.Layer<
        | HttpServer.HttpServer
        | PeerIdentity.PeerIdentity
        | HttpPlatform.HttpPlatform
        | Etag.Generator
        | NodeContext.NodeContext,
        HttpServerError.ServeError | IdentityError.IdentityError | Refused,
        Identity | AuditLog.AuditLog
      >
    >()
    expectTypeOf(NodeSecureSocketServer.layer).returns.toEqualTypeOf<
      Layer.Layer<
        SocketServer.SocketServer | PeerIdentity.PeerIdentity,
        SocketServer.SocketServerError | IdentityError.IdentityError | Refused,
        Identity | AuditLog.AuditLog
      >
    >()
    // @ts-expect-error who is served must be said
    NodeSecureSocketServer.layer({ port: 0 })
    expectTypeOf(NodeAuditLog.layerFile).returns.toEqualTypeOf<
      Layer.Layer<AuditLog.AuditLog, AuditLog.AuditError | Refused, Identity>
    >()
    expectTypeOf(NodeIdentity.layerFiles).returns.toEqualTypeOf<
      Layer.Layer<Identity, IdentityError.IdentityError | Refused>
    >()
    expectTypeOf(NodeIdentity.layerFilesConfig).returns.toEqualTypeOf<
      Layer.Layer<Identity, IdentityError.IdentityError | Refused | ConfigError.ConfigError>
    >()
    expectTypeOf(AuditAnchor.layerFile).returns.toEqualTypeOf<Layer.Layer<AuditAnchor.AuditAnchor, Refused>>()
    expectTypeOf(AuditAnchor.layerChannel).returns.toEqualTypeOf<Layer.Layer<AuditAnchor.AuditAnchor, Refused>>()
    expectTypeOf(NodeDispatcher.layerFetch).toEqualTypeOf<Layer.Layer<Fetch, never, HttpClient.HttpClient>>()
    expectTypeOf(FederatedBundles.layer).returns.toEqualTypeOf<
      Layer.Layer<Identity, IdentityError.IdentityError | Refused, Identity | AuditLog.AuditLog>
    >()
  }))
