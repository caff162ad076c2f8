import type { TLSSocket } from "node:tls"
import type { AuditError } from "@agentweave/transport/AuditLog"
import { type ConnectOptions, Connector, type OpenedStream } from "@agentweave/transport/Connector"
import { ScopeClosedError, type TransportError } from "@agentweave/transport/TransportError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import { tlsSocketOf } from "./streamWire.js"

/** A connection, and Node's socket that it is on. */
export interface Opened {
  readonly connection: OpenedStream
  readonly socket: TLSSocket
}

/** A connection and Node's socket under it, until the scope closes. */
export const openIn = (
  options: ConnectOptions
): Effect.Effect<Opened, TransportError | AuditError, Connector | Scope.Scope> =>
  Effect.flatMap(Connector, (connector) =>
    Effect.flatMap(connector.connectStream(options), (connection) => {
      const socket = tlsSocketOf(connection)
      return socket === undefined
        ? Effect.dieMessage("expected a connector that has Node's sockets, such as NodeConnector.layer")
        : Effect.succeed({ connection, socket })
    })
  )

/** Opens a connection for a callback. Returns what gives the attempt up, or ends the connection. */
export type Opener = (
  options: Effect.Effect<ConnectOptions, Error>,
  onOpen: (opened: Opened) => void,
  onFailure: (cause: Error) => void
) => () => void

/**
 * Opens connections out of callbacks of libraries. Each lasts until it ends by itself; all of them end with the scope, and
 * none is opened any more. `target` names the peer in the error that says so.
 */
export const make = Effect.fnUntraced(function* (target: string) {
  const runFork = yield* FiberSet.makeRuntime<Connector>()
  const open: Opener = (options, onOpen, onFailure) => {
    const life = Effect.scoped(
      Effect.flatMap(Effect.flatMap(options, openIn), (opened) =>
        Effect.async<void>((resume) => {
          onOpen(opened)
          opened.connection.onEnded(() => resume(Effect.void))
        })
      )
    )
    const fiber = runFork(Effect.interruptible(life))
    fiber.addObserver((exit) => {
      if (Exit.isFailure(exit)) onFailure(errorOf(exit.cause, target))
    })
    return () => fiber.unsafeInterruptAsFork(FiberId.none)
  }
  return open
})

/** The error of an attempt that has failed. Where it was interrupted by its caller, nothing waits for an error any more. */
const errorOf = (cause: Cause.Cause<unknown>, target: string): Error => {
  if (Cause.isInterruptedOnly(cause)) return new ScopeClosedError({ reason: "Adapter", target })
  const error = Cause.squash(cause)
  return error instanceof Error ? error : new Error("expected a connection, the attempt failed", { cause: error })
}
