/**
 * Where a cluster keeps its messages and its runners: the SQL storages of `@effect/cluster`, in a database of the program's
 * or in one that is embedded.
 *
 * Every process that can write to this database is inside the cluster: it can register a runner, take shards, and leave messages that are
 * served. The database is to be open to the runners of the cluster and to nobody else.
 *
 * @since 0.1.0
 */
import { decoder, Text } from "@agentweave/spiffe/OptionsDecoder"
import type { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import type { MessageStorage } from "@effect/cluster/MessageStorage"
import type { RunnerStorage } from "@effect/cluster/RunnerStorage"
import type { ShardingConfig } from "@effect/cluster/ShardingConfig"
import * as SqlMessageStorage from "@effect/cluster/SqlMessageStorage"
import * as SqlRunnerStorage from "@effect/cluster/SqlRunnerStorage"
import type { SqlClient } from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as embedded from "./internal/embedded.js"

/**
 * Options of the tables.
 *
 * @since 0.1.0
 * @category models
 */
export interface SqlOptions {
  /** The beginning of the tables' names. Default `"cluster"`. */
  readonly prefix?: string | undefined
}

/**
 * Options of the embedded database. `file` is required.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends SqlOptions {
  /** The database file, which is made where there is none: a local file, on no network file system. */
  readonly file: string
}

const prefix = Schema.optionalWith(Text, { default: () => "cluster" })

const decodeSql = decoder("ClusterStorage", Schema.Struct({ prefix }))

const decode = decoder("ClusterStorage", Schema.Struct({ prefix, file: Text }))

const storages = (options: { readonly prefix: string }) =>
  Layer.merge(SqlMessageStorage.layerWith(options), SqlRunnerStorage.layerWith(options))

/**
 * The storages of `@effect/cluster` in the database of the program's `SqlClient`: for runners on more than one machine.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { ClusterStorage } from "@agentweave/cluster"
 * import type { SqlClient } from "@effect/sql"
 * import { Layer } from "effect"
 *
 * declare const Database: Layer.Layer<SqlClient.SqlClient> // of @effect/sql-pg, for example
 *
 * const Storage = ClusterStorage.layerSql({ prefix: "billing" }).pipe(Layer.provide(Database))
 * ```
 */
export const layerSql = (
  options: SqlOptions = {}
): Layer.Layer<MessageStorage | RunnerStorage, SqlError | InvalidConfigError, SqlClient | ShardingConfig> =>
  Layer.unwrapEffect(Effect.map(decodeSql(options), storages))

/**
 * The storages in a database file that the runners of one machine share, by SQLite (`libsql`): nothing to install, nothing to
 * run. A message that was acknowledged is on the disk. For development, and for a service that fits on one machine.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { ClusterStorage } from "@agentweave/cluster"
 *
 * const Storage = ClusterStorage.layer({ file: "/var/lib/app/cluster.db" })
 * ```
 */
export const layer = (
  options: Options
): Layer.Layer<MessageStorage | RunnerStorage, SqlError | InvalidConfigError, ShardingConfig> =>
  Layer.unwrapEffect(
    Effect.map(decode(options), ({ file, ...tables }) => Layer.provide(storages(tables), embedded.layer(file)))
  )
