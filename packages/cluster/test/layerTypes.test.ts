import {
  ClusterStorage,
  type RunnerIdentityError,
  RunnerPeers,
  SecureHttpRunner,
  SecureSocketRunner
} from "@agentweave/cluster"
import type { IdentityError, IdentityProvider } from "@agentweave/spiffe"
import type { AuditLog, Connector, InvalidConfigError, PeerDirectory } from "@agentweave/transport"
import type { MessageStorage, RunnerStorage, Runners, Sharding, ShardingConfig } from "@effect/cluster"
import type { HttpServerError, SocketServer } from "@effect/platform"
import type { SqlClient, SqlError } from "@effect/sql"
import type { Layer } from "effect"
import { expectTypeOf, it } from "vitest"

type Refused = InvalidConfigError.InvalidConfigError
type Storage = MessageStorage.MessageStorage | RunnerStorage.RunnerStorage
type Provided = Sharding.Sharding | Runners.Runners
type Client = Connector.Connector | RunnerPeers.RunnerPeers | ShardingConfig.ShardingConfig | Storage
type Server = Client | IdentityProvider.IdentityProvider | AuditLog.AuditLog
type OwnIdentity = IdentityError.IdentityError | RunnerIdentityError.RunnerIdentityError

// Only their types are looked at: `tsc` is what fails here.
const types = (_: () => unknown) => {}

it("the layers of runners and storages provide, refuse and need exactly what they say", () =>
  types(() => {
    expectTypeOf(SecureSocketRunner.layer).returns.toEqualTypeOf<
      Layer.Layer<Provided, SocketServer.SocketServerError | OwnIdentity | Refused, Server>
    >()
    expectTypeOf(SecureSocketRunner.layerClientOnly).returns.toEqualTypeOf<Layer.Layer<Provided, Refused, Client>>()
    expectTypeOf(SecureHttpRunner.layer).returns.toEqualTypeOf<
      Layer.Layer<Provided, HttpServerError.ServeError | OwnIdentity | Refused, Server>
    >()
    expectTypeOf(SecureHttpRunner.layerClientOnly).returns.toEqualTypeOf<
      Layer.Layer<Provided, Refused, Client | IdentityProvider.IdentityProvider>
    >()
    // @ts-expect-error who may join must be said
    SecureSocketRunner.layer({})
    // @ts-expect-error who may join must be said
    SecureHttpRunner.layer({ transport: "http" })
    expectTypeOf(ClusterStorage.layer).returns.toEqualTypeOf<
      Layer.Layer<Storage, SqlError.SqlError | Refused, ShardingConfig.ShardingConfig>
    >()
    expectTypeOf(ClusterStorage.layerSql).returns.toEqualTypeOf<
      Layer.Layer<Storage, SqlError.SqlError | Refused, ShardingConfig.ShardingConfig | SqlClient.SqlClient>
    >()
    expectTypeOf(RunnerPeers.layerDirectory).toEqualTypeOf<
      Layer.Layer<RunnerPeers.RunnerPeers, never, PeerDirectory.PeerDirectory>
    >()
  }))
