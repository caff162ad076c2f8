import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AnySpan } from "effect/Tracer"
import type { CloseReason } from "../../AuditEvent.js"
import type { AuditError } from "../../AuditLog.js"
import type { Connection } from "../../Connector.js"
import type { TransportError } from "../../TransportError.js"
import type { Link } from "../http/exchange.js"
import type { Base } from "../http/target.js"
import type { Limit, Limits, Slot } from "./state.js"

/** A connection in a pool. It belongs to one slot for all its life. */
export interface PoolLink extends Link {
  readonly connection: Connection
  readonly base: Base
  readonly slot: PoolSlot
  readonly scope: Scope.CloseableScope
  readonly bornAt: number
}

export type PoolSlot = Slot<PoolLink>

/** The peer of a slot: the one it is for, or of a matcher's the one that was verified. */
export const peerOf = ({ link, target: { key } }: PoolSlot): SpiffeId.SpiffeId =>
  link === undefined || key.startsWith("spiffe://") ? SpiffeId.make(key) : link.connection.peer.spiffeId

/** A lease that is looked after: since when it is held and where it was taken. */
export interface Loan {
  readonly peer: SpiffeId.SpiffeId
  readonly since: number
  readonly stack: string | undefined
  readonly span: AnySpan | undefined
}

/** Why a connection could not be opened. */
export type OpenError = TransportError | AuditError

/** A caller that wants a connection. `ER` is why his request may be refused before one is opened. */
export interface Claimant<ER> {
  readonly admit: (base: Base) => Effect.Effect<void, ER>
}

/** Somebody who has no request yet. */
export const nobody: Claimant<never> = { admit: () => Effect.void }

/** The parts of a pool; `E` is its answer in place of a connection. Durations in milliseconds. */
export interface PoolOptions<E> {
  readonly limits: Limits
  /** How long to wait for a slot; zero fails at once. */
  readonly acquireTimeout: number
  /** How long an idle connection is kept; may be infinite. */
  readonly idleTimeout: number
  /** How long a connection is used; may be infinite. */
  readonly maxLifetime: number
  /** How long a connection may take to leave the wire when another one waits for its place. */
  readonly wireTimeout: number
  /** How long a lease may be held before it is taken for a leak; may be infinite. */
  readonly leakThreshold: number
  readonly address: (key: string) => Effect.Effect<Base, OpenError>
  readonly connect: (
    key: string,
    base: Base,
    onClose: (reason: CloseReason) => void
  ) => Effect.Effect<Connection, OpenError, Scope.Scope>
  readonly exhausted: (key: string, limit: Limit) => E
  readonly closed: (key: string) => E
}
