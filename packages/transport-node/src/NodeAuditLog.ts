/**
 * The audit log as a file that shows when it was tampered with.
 *
 * @since 0.1.0
 */
import type { IdentityProvider } from "@agentweave/spiffe/IdentityProvider"
import { type AuditError, AuditLog } from "@agentweave/transport/AuditLog"
import type * as Duration from "effect/Duration"
import * as Layer from "effect/Layer"
import { make } from "./internal/auditLog.js"

/**
 * What becomes of an event that the file cannot take, because the disk is slow or writing fails: `FailClosed` refuses what
 * the event stands for with `AuditError`; `DropAndCount` lets it happen. Either way the file says how many are missing.
 *
 * @since 0.1.0
 * @category models
 */
export type WhenFull = "FailClosed" | "DropAndCount"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The file; a full one is renamed to `<path>.<sequence number of its last record>`. */
  readonly path: string
  /** For connections, refusals, identity and policies. Default `"FailClosed"`. */
  readonly whenFull?: WhenFull | undefined
  /** For requests. Default `"DropAndCount"`. */
  readonly whenFullOfRequests?: WhenFull | undefined
  /** What a killed process may lose at most: events are written this long after they came. Default 100 milliseconds. */
  readonly flushWindow?: Duration.DurationInput | undefined
  /** Events that may wait to be written. Default 65,536. */
  readonly maxPending?: number | undefined
  /** Size in bytes from which a new file is begun. Default 64 MiB. */
  readonly maxFileSize?: number | undefined
  /** A signed checkpoint after this many records, and at the end. Default 1,000. */
  readonly checkpointEvery?: number | undefined
}

/**
 * Events as newline-delimited JSON in a file (mode 0600), in batches. Each record carries a gapless sequence number and the
 * SHA-256 of the record before; every `checkpointEvery` records and at the end a checkpoint is signed with the workload's
 * newest SVID. Events do not wait for one that is not there yet; the end of a file does, for a second. `AuditFile.verify` tells whether a file is as it was written.
 *
 * A file that is deleted, replaced or cut short while it is written is noticed when the next events are: a new one goes on
 * with the chain and says in its header which records are lost; what stood in its place is kept as
 * `<path>.replaced.<sequence number>`. Where a full file cannot be renamed, or the next one not be opened, it is tried again.
 *
 * An existing file is continued under a new name: its chain goes on in the new one, without the record that a crash may
 * have torn at its end. Building the layer fails with
 * `AuditError` when the file cannot be written, or when the existing one is not intact.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerFile = (options: Options): Layer.Layer<AuditLog, AuditError, IdentityProvider> =>
  Layer.scoped(AuditLog, make(options))
