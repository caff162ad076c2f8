/**
 * The audit log as a file that shows when it was tampered with.
 *
 * @since 0.1.0
 */
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import type { InvalidConfigError } from "@agentweave/spiffe/InvalidConfigError"
import { type AuditError, AuditLog } from "@agentweave/transport/AuditLog"
import type * as Duration from "effect/Duration"
import * as Layer from "effect/Layer"
import { make } from "./internal/audit/writer.js"

/**
 * How an event is treated that the file cannot take, because the disk is slow or writing fails: `FailClosed` refuses what
 * the event stands for with `AuditError`; `DropAndCount` lets it happen. Either way the file says how many are missing.
 *
 * @since 0.1.0
 * @category models
 */
export type WhenFull = "FailClosed" | "DropAndCount"

/**
 * Options of the audit file, each with its default.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The file; a full one is renamed to `<path>.<sequence number of its last record>`. */
  readonly path: string
  /** For connections, refusals, identity and policies. Default `"FailClosed"`. */
  readonly whenFull?: WhenFull | undefined
  /**
   * For requests. Default `"DropAndCount"`: then a request that ends within the flush window is one record, its
   * `RequestEnded`. With `"FailClosed"` it is two, because its start must be on record first.
   */
  readonly whenFullOfRequests?: WhenFull | undefined
  /** The longest stretch of events that a killed process loses: events are written this long after they came. Default 100 milliseconds. */
  readonly flushWindow?: Duration.DurationInput | undefined
  /** Events that may wait to be written. Default 65,536. */
  readonly maxPending?: number | undefined
  /** Size in bytes from which a new file is begun. Default 64 MiB. */
  readonly maxFileSize?: number | undefined
  /** A signed checkpoint after this many records, and at the end. Default 1,000. */
  readonly checkpointEvery?: number | undefined
  /** How long records stay unsigned at most, while the identity is there. Default 1 minute. */
  readonly checkpointInterval?: Duration.DurationInput | undefined
  /** Size in bytes of all files together, from which the oldest full ones are removed. Default: none is. */
  readonly maxTotalSize?: number | undefined
  /** Age from which full files are removed; a file is full at half of it at the latest. Default: none is removed. */
  readonly maxAge?: Duration.DurationInput | undefined
  /**
   * Free space in bytes below which strangers are only counted, so that they cannot take what is left from peers that prove
   * their identity. At most a twentieth of the volume. Default 64 MiB.
   */
  readonly reservedSpace?: number | undefined
  /**
   * Connection attempts of peers that do not prove their identity which a server puts on record each minute; of more only
   * sums are kept (`ConnectionsRefused`). Default 100.
   */
  readonly maxStrangers?: number | undefined
}

/**
 * Events as newline-delimited JSON in a file (mode 0600), in batches. Each record carries a gapless sequence number; rows of
 * up to 64 records carry the SHA-256 of the row before; every `checkpointEvery` records, each `checkpointInterval` and at
 * the end a checkpoint is signed with the workload's SVID, and never with one that is not valid. Events do not wait for an
 * SVID that is not there yet; the end of a log does, for a second. `AuditFile.verify` tells whether a file is as it was
 * written.
 *
 * The path is locked by a file beside it (`<path>.lock`): a second writer fails with `AuditError`. What is at the path is
 * opened without following links. An audit file is continued under a new name: its chain goes on in the next one, without
 * the record that a crash may have torn at its end. Anything else, and a file that is not as it was written, is left as it is
 * and fails the layer with `AuditError`.
 *
 * A file that is deleted, replaced or cut short while it is written is noticed when the next events are: a new one goes on
 * with the chain and says in its header which records are lost; what stood in its place is kept as
 * `<path>.replaced.<sequence number>`. Where a full file cannot be renamed, or the next one not be opened, it is tried again.
 *
 * Where an `AuditAnchor` is provided, each checkpoint is given to it, and it is asked for the newest one when the log opens.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { AuditAnchor, NodeAuditLog } from "@agentweave/transport-node"
 * import { WorkloadApi } from "@agentweave/workload-api"
 * import { Layer } from "effect"
 *
 * const Audit = NodeAuditLog.layerFile({ path: "/var/log/web/audit.ndjson", maxAge: "90 days" }).pipe(
 *   Layer.provide(AuditAnchor.layerFile({ path: "/mnt/anchors/web.ndjson" })),
 *   Layer.provide(WorkloadApi.layer())
 * )
 * ```
 */
export const layerFile = (options: Options): Layer.Layer<AuditLog, AuditError | InvalidConfigError, IdentityProvider> =>
  Layer.scoped(AuditLog, make(options))
