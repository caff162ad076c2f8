/** A listening Unix domain socket whose life is a scope. */
import * as fs from "node:fs/promises"
import * as net from "node:net"
import { dirname } from "node:path"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import { WorkloadApiServerError } from "../WorkloadApiServerError.js"
import { maxPathBytes } from "../WorkloadEndpoint.js"

const codeOf = (cause: unknown): string =>
  Predicate.hasProperty(cause, "code") && typeof cause.code === "string" ? cause.code : String(cause)

const failure = (
  reason: WorkloadApiServerError["reason"],
  socketPath: string,
  description: string,
  cause?: unknown
): WorkloadApiServerError => new WorkloadApiServerError({ reason, socketPath, description, cause })

/** Explains the operating system's refusal to those who chose the path. */
const explained = (socketPath: string, code: string): string => {
  const directory = dirname(socketPath)
  switch (code) {
    case "ENOENT":
      return `expected directory ${directory} to exist, it does not`
    case "ENOTDIR":
      return `expected ${directory} to be a directory, it is not`
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return `expected to be allowed to open a socket in ${directory}, this user is not`
    default:
      return "the socket cannot be opened"
  }
}

const bindFailure = (socketPath: string) => (cause: unknown) => {
  const code = codeOf(cause)
  return failure("Bind", socketPath, `${explained(socketPath, code)} (${code})`, cause)
}

/** Whether somebody listens; a socket file that was left behind refuses connections. */
const isServed = (socketPath: string): Effect.Effect<boolean, WorkloadApiServerError> =>
  Effect.async((resume) => {
    const socket = net.connect(socketPath)
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.succeed(true))
    })
    socket.once("error", (cause) =>
      resume(codeOf(cause) === "ECONNREFUSED" ? Effect.succeed(false) : Effect.fail(bindFailure(socketPath)(cause)))
    )
    return Effect.sync(() => socket.destroy())
  })

/** Removes the socket a process left behind when it died, and nothing else. */
const clear = Effect.fnUntraced(function* (socketPath: string) {
  const found = yield* Effect.tryPromise({ try: () => fs.lstat(socketPath), catch: bindFailure(socketPath) }).pipe(
    Effect.catchIf(
      (error) => codeOf(error.cause) === "ENOENT",
      () => Effect.succeed(undefined)
    )
  )
  if (found === undefined) return
  if (!found.isSocket())
    return yield* failure("NotASocket", socketPath, "expected a socket or nothing, got another file")
  if (yield* isServed(socketPath)) return yield* failure("InUse", socketPath, "another process answers on it")
  yield* Effect.tryPromise({ try: () => fs.unlink(socketPath), catch: bindFailure(socketPath) })
})

export interface Listener {
  readonly connections: Effect.Effect<number>
  /** Cuts every connection. */
  readonly disconnectAll: Effect.Effect<void>
}

/**
 * Binds under a file mode creation mask, so that there is no moment at which the socket can be opened by more than `mode`
 * says. Node binds in the same turn in which it is told to listen.
 */
const bind = (server: net.Server, socketPath: string, mode: number): void => {
  const mask = process.umask(0o777 & ~mode)
  server.listen(socketPath)
  process.umask(mask)
}

const open = (
  socketPath: string,
  mode: number,
  onConnection: (socket: net.Socket) => void
): Effect.Effect<net.Server, WorkloadApiServerError> =>
  Effect.async<net.Server, unknown>((resume) => {
    const server = net.createServer(onConnection)
    // The listener stays: an error of a later connection must not end the process.
    server.on("error", (cause) => resume(Effect.fail(cause)))
    server.once("listening", () => resume(Effect.succeed(server)))
    bind(server, socketPath, mode)
  }).pipe(Effect.catchAllDefect(Effect.fail), Effect.mapError(bindFailure(socketPath)))

/** Node removes the socket's file when it closes. */
const close = (server: net.Server): Effect.Effect<void> =>
  Effect.async((resume) => {
    server.close(() => resume(Effect.void))
  })

/** Listens on a path, hands every connection on, and at the end of the scope cuts them and removes the socket. */
export const listen = Effect.fnUntraced(function* (options: {
  readonly socketPath: string
  readonly mode: number
  readonly onConnection: (socket: net.Socket) => void
}): Effect.fn.Return<Listener, WorkloadApiServerError, Scope.Scope> {
  const { mode, onConnection, socketPath } = options
  if (Buffer.byteLength(socketPath) > maxPathBytes) {
    return yield* failure("Bind", socketPath, `expected a path of at most ${maxPathBytes} bytes, got a longer one`)
  }
  const sockets = new Set<net.Socket>()
  const disconnectAll = Effect.sync(() => {
    for (const socket of sockets) socket.destroy()
  })
  const accept = (socket: net.Socket): void => {
    sockets.add(socket)
    // A connection that breaks is closed; there is nobody to tell.
    socket.on("error", () => socket.destroy())
    socket.once("close", () => sockets.delete(socket))
    onConnection(socket)
  }
  yield* clear(socketPath)
  yield* Effect.acquireRelease(open(socketPath, mode, accept), (server) =>
    Effect.zipRight(disconnectAll, close(server))
  )
  return { connections: Effect.sync(() => sockets.size), disconnectAll }
})
