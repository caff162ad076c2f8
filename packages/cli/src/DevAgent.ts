/**
 * A development authority behind Workload APIs: short-lived SVIDs that rotate. The program behind `agentweave dev-agent`.
 *
 * @since 0.1.0
 */
import { mkdir } from "node:fs/promises"
import { dirname, resolve } from "node:path"
import { type IdentityProvider, X509Context } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { WorkloadApiServer } from "@agentweave/workload-api"
import { type Context, Data, Duration, Effect, Schedule, SubscriptionRef } from "effect"
import { type Options, parse, type Socket } from "./internal/devAgentOptions.js"

export {
  /**
   * The options of the command line.
   *
   * @since 0.1.0
   * @category models
   */
  type Options,
  /**
   * Reads the arguments of the command line, or says what is wrong with them.
   *
   * @since 0.1.0
   * @category constructors
   */
  parse,
  /**
   * The workloads of one socket.
   *
   * @since 0.1.0
   * @category models
   */
  type Socket
}

/** The last segment of a path: how a program with several SVIDs tells them apart. */
const hintOf = (workload: string): string => workload.slice(workload.lastIndexOf("/") + 1)

const issue = (authority: DevAuthority.DevAuthority, { workloads }: Socket, ttl: Duration.Duration) =>
  Effect.gen(function* () {
    const [first, ...rest] = workloads
    const issueTo = (path: string) => authority.issue({ path, ttl, hint: hintOf(path) })
    return X509Context.make({
      svid: yield* issueTo(first),
      others: yield* Effect.forEach(rest, issueTo),
      bundles: yield* DevAuthority.bundles([authority])
    })
  })

/** One socket's identity, re-issued at half of its life for as long as the scope lasts. */
const rotating = (authority: DevAuthority.DevAuthority, socket: Socket, ttl: Duration.Duration) =>
  Effect.gen(function* () {
    const next = Effect.orDie(issue(authority, socket, ttl))
    const current = yield* SubscriptionRef.make(yield* next)
    yield* Effect.forkScoped(
      Effect.schedule(
        Effect.flatMap(next, (context) => SubscriptionRef.set(current, context)),
        Schedule.spaced(Duration.times(ttl, 0.5))
      )
    )
    return { x509Context: SubscriptionRef.get(current), changes: current.changes } satisfies Context.Tag.Service<
      typeof IdentityProvider.IdentityProvider
    >
  })

/**
 * A directory that cannot be made.
 *
 * @since 0.1.0
 * @category errors
 */
export class DirectoryError extends Data.TaggedError("DirectoryError")<{ readonly message: string }> {}

const makeDirectory = (path: string) =>
  Effect.tryPromise({
    try: () => mkdir(path, { recursive: true, mode: 0o700 }),
    catch: (cause) =>
      new DirectoryError({
        message: `--socket: expected a directory ${path}, or a place to create it in, got ${cause instanceof Error ? cause.message : cause}`
      })
  })

/**
 * Serves until the scope closes; the result says which workloads are where. The authority is new each time: what it
 * vouched for before, nobody verifies any more.
 *
 * @since 0.1.0
 * @category programs
 */
export const serve = ({ sockets, trustDomain, ttl }: Options) =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain })
    return yield* Effect.forEach(sockets, (socket) =>
      Effect.gen(function* () {
        const socketPath = resolve(socket.path)
        yield* makeDirectory(dirname(socketPath))
        const source = yield* rotating(authority, socket, ttl)
        const { endpoint } = yield* WorkloadApiServer.make({ socketPath, source })
        return { endpoint, ids: socket.workloads.map((workload) => authority.id(workload)) }
      })
    )
  })
