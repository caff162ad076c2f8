/**
 * A SPIFFE Workload API that does what a test tells it: right, wrong, late or not at all.
 *
 * @since 0.1.0
 */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type InvalidConfigError, OptionsDecoder, type X509Context } from "@agentweave/spiffe"
import {
  WorkloadApiError,
  WorkloadApiServer,
  type WorkloadApiServerError,
  WorkloadEndpoint,
  WorkloadMessage
} from "@agentweave/workload-api"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"

/**
 * The agent's state is what was pushed last: calls that are open are told of every push, and later calls begin with the
 * newest. Before the first push they are left without an answer.
 *
 * @since 0.1.0
 * @category models
 */
export interface FakeWorkloadApi {
  /** For `SPIFFE_ENDPOINT_SOCKET`, or the option `endpoint` of `WorkloadApi.layer`. */
  readonly endpoint: string
  readonly socketPath: string
  /** A proper update. */
  readonly push: (context: X509Context.X509Context) => Effect.Effect<void>
  /** An update whose fields are anything. */
  readonly pushMessage: (message: WorkloadMessage.X509SvidResponse) => Effect.Effect<void>
  /** An update that is anything. */
  readonly pushBytes: (bytes: Uint8Array) => Effect.Effect<void>
  /** An update that is no message at all. */
  readonly corrupt: Effect.Effect<void>
  /** Open and later calls end with this error, until the next push. */
  readonly fail: (error: WorkloadApiError.WorkloadApiError) => Effect.Effect<void>
  /** The workload has no identity: calls end with `PermissionDenied`, until the next push. */
  readonly deny: Effect.Effect<void>
  /** Later calls get their first answer only after this long: finite, not negative. */
  readonly delay: (duration: Duration.DurationInput) => Effect.Effect<void, InvalidConfigError.InvalidConfigError>
  /** Cuts every connection; clients find the agent there when they come back. */
  readonly drop: Effect.Effect<void>
  /** The agent's process is gone: connections are cut, and the socket is no more. */
  readonly stop: Effect.Effect<void>
  /** The agent is back on the same socket, with the state it had; stopped first if it is still there. */
  readonly restart: Effect.Effect<
    void,
    WorkloadApiServerError.WorkloadApiServerError | InvalidConfigError.InvalidConfigError
  >
  /** How many calls of `FetchX509SVID` there have been. */
  readonly calls: Effect.Effect<number>
  /** Waits until there have been this many. */
  readonly awaitCalls: (count: number) => Effect.Effect<void>
  /** Open connections. */
  readonly connections: Effect.Effect<number>
}

interface Answer {
  readonly svids: Redacted.Redacted<Uint8Array>
  readonly bundles: Uint8Array
}

const corruptBytes = Uint8Array.of(0x0a, 0x7f, 0xff, 0xff)

const denial = new WorkloadApiError.WorkloadApiError({
  reason: "PermissionDenied",
  description: "no identity issued"
})

const decodeOptions = OptionsDecoder.decoder(
  "FakeWorkloadApi",
  Schema.Struct({ socketPath: Schema.optional(OptionsDecoder.Text) })
)

const decodeDelay = OptionsDecoder.decoder(
  "FakeWorkloadApi.delay",
  Schema.Struct({ duration: OptionsDecoder.NonNegativeDuration })
)

const temporaryDirectory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "workload-api-"))),
  (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
)

/**
 * A fake agent on a socket in a directory of its own; both are gone when the scope closes.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { DevAuthority, FakeWorkloadApi } from "@agentweave/testkit"
 * import { WorkloadApi } from "@agentweave/workload-api"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
 *   const agent = yield* FakeWorkloadApi.make()
 *   yield* agent.push(yield* authority.context({ path: "/api" }))
 *   const identity = WorkloadApi.layer({ endpoint: agent.endpoint })
 *   // ... run what is tested with identity, then:
 *   yield* agent.deny
 * })
 * ```
 */
export const make = Effect.fnUntraced(function* (
  options: { readonly socketPath?: string | undefined } = {}
): Effect.fn.Return<
  FakeWorkloadApi,
  WorkloadApiServerError.WorkloadApiServerError | InvalidConfigError.InvalidConfigError,
  Scope.Scope
> {
  const given = yield* decodeOptions(options)
  const socketPath = given.socketPath ?? join(yield* temporaryDirectory, "agent.sock")
  const state = yield* SubscriptionRef.make(Option.none<Exit.Exit<Answer, WorkloadApiError.WorkloadApiError>>())
  const calls = yield* SubscriptionRef.make(0)
  const delay = yield* Ref.make(Duration.zero)

  const updates = Stream.unwrap(
    Effect.gen(function* () {
      yield* Effect.sleep(yield* Ref.get(delay))
      return Stream.mapEffect(
        Stream.filterMap(state.changes, (answer) => answer),
        (answer) => answer
      )
    })
  )
  const countCall = SubscriptionRef.update(calls, (count) => count + 1)
  const answers: WorkloadApiServer.Answers = {
    x509Svids: Stream.unwrap(
      Effect.as(
        countCall,
        Stream.map(updates, (answer) => answer.svids)
      )
    ),
    x509Bundles: Stream.map(updates, (answer) => answer.bundles)
  }

  const set = (answer: Exit.Exit<Answer, WorkloadApiError.WorkloadApiError>) =>
    SubscriptionRef.set(state, Option.some(answer))
  const pushEncoded = (svids: Redacted.Redacted<Uint8Array>, bundles: WorkloadMessage.X509BundlesResponse) =>
    set(Exit.succeed({ svids, bundles: WorkloadMessage.encodeX509BundlesResponse(bundles) }))
  const pushBytes = (bytes: Uint8Array) => set(Exit.succeed({ svids: Redacted.make(bytes), bundles: bytes }))

  const parent = yield* Effect.scope
  const running = yield* Ref.make(
    Option.none<{ readonly scope: Scope.CloseableScope; readonly server: WorkloadApiServer.WorkloadApiServer }>()
  )
  const withServer = <A>(f: (server: WorkloadApiServer.WorkloadApiServer) => Effect.Effect<A>, otherwise: A) =>
    Effect.flatMap(
      Ref.get(running),
      Option.match({ onNone: () => Effect.succeed(otherwise), onSome: ({ server }) => f(server) })
    )
  const stop = Effect.flatMap(
    Ref.getAndSet(running, Option.none()),
    Option.match({ onNone: () => Effect.void, onSome: ({ scope }) => Scope.close(scope, Exit.void) })
  )
  const start = Effect.gen(function* () {
    const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
    const server = yield* Scope.extend(WorkloadApiServer.makeAnswers({ socketPath, answers }), scope)
    yield* Ref.set(running, Option.some({ scope, server }))
  })
  yield* start

  return {
    endpoint: WorkloadEndpoint.format(WorkloadEndpoint.unix(socketPath)),
    socketPath,
    push: (context) =>
      pushEncoded(
        WorkloadMessage.encodeX509SvidResponse(WorkloadMessage.toX509SvidResponse(context)),
        WorkloadMessage.toX509BundlesResponse(context)
      ),
    pushMessage: (message) =>
      pushEncoded(WorkloadMessage.encodeX509SvidResponse(message), { bundles: message.federatedBundles }),
    pushBytes,
    corrupt: pushBytes(corruptBytes),
    fail: (error) => set(Exit.fail(error)),
    deny: set(Exit.fail(denial)),
    delay: (duration) => Effect.flatMap(decodeDelay({ duration }), (decoded) => Ref.set(delay, decoded.duration)),
    drop: withServer((server) => server.disconnectAll, undefined),
    stop,
    restart: Effect.zipRight(stop, start),
    calls: SubscriptionRef.get(calls),
    awaitCalls: (count) => Stream.runDrain(Stream.takeUntil(calls.changes, (made) => made >= count)),
    connections: withServer((server) => server.connections, 0)
  }
})
