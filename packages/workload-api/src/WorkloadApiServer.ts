/**
 * Publishes an identity source as a SPIFFE Workload API on a Unix domain socket, for development and tests: programs in
 * any language take their identity from it as they would from an agent.
 *
 * @since 0.1.0
 */
import { type IdentityError, IdentityProvider, type InvalidConfigError, OptionsDecoder } from "@agentweave/spiffe"
import { makeRunFork } from "@agentweave/spiffe/Background"
import { ServerCredentials } from "@grpc/grpc-js"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { makeServer } from "./internal/grpcServer.js"
import { listen } from "./internal/unixSocket.js"
import { WorkloadApiError } from "./WorkloadApiError.js"
import type { WorkloadApiServerError } from "./WorkloadApiServerError.js"
import * as WorkloadEndpoint from "./WorkloadEndpoint.js"
import * as WorkloadMessage from "./WorkloadMessage.js"

/**
 * A Workload API that is being served.
 *
 * @since 0.1.0
 * @category models
 */
export interface WorkloadApiServer {
  /** The endpoint as a client puts it into `SPIFFE_ENDPOINT_SOCKET`. */
  readonly endpoint: string
  /** Open connections. */
  readonly connections: Effect.Effect<number>
  /** Cuts every connection; clients may come back. */
  readonly disconnectAll: Effect.Effect<void>
}

/**
 * The Unix socket a server listens on.
 *
 * @since 0.1.0
 * @category models
 */
export interface SocketOptions {
  /** Absolute path of the socket. One that a dead process left behind is replaced; anything else there is an error. */
  readonly socketPath: string
  /**
   * Permissions of the socket. Private keys pass through it, and whoever may open it is given them: default `0o600`, this
   * user alone.
   */
  readonly mode?: number | undefined
}

/**
 * The answers to a call: one stream run a call, which begins with the present state. It fails with the error the
 * call is to end with.
 *
 * @since 0.1.0
 * @category models
 */
export interface Answers {
  /** Encoded answers of `FetchX509SVID`. */
  readonly x509Svids: Stream.Stream<Redacted.Redacted<Uint8Array>, WorkloadApiError>
  /** Encoded answers of `FetchX509Bundles`. */
  readonly x509Bundles: Stream.Stream<Uint8Array, WorkloadApiError>
  /** Encoded answers of `FetchJWTBundles`. Default: the call is `Unimplemented`, with the rest of the JWT profile. */
  readonly jwtBundles?: Stream.Stream<Uint8Array, WorkloadApiError> | undefined
}

const { NumberIn, Text } = OptionsDecoder

/** Answers, or the source that they are made of, are values of the program's own. */
const decode = OptionsDecoder.decoder(
  "WorkloadApiServer",
  Schema.Struct({
    socketPath: Text,
    mode: Schema.optionalWith(NumberIn(0, 0o777), { default: () => 0o600 }),
    answers: Schema.Unknown
  })
)

/**
 * Serves answers that are given: what {@link make} rests on, for a server that says other things than the truth.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { WorkloadApiError, WorkloadApiServer } from "@agentweave/workload-api"
 * import { Effect, Stream } from "effect"
 *
 * // An agent that is still starting.
 * const starting = Stream.fail(new WorkloadApiError.WorkloadApiError({ reason: "Unavailable", description: "starting" }))
 *
 * const endpoint = WorkloadApiServer.makeAnswers({
 *   socketPath: "/tmp/agent.sock",
 *   answers: { x509Svids: starting, x509Bundles: starting }
 * }).pipe(Effect.map((server) => server.endpoint))
 * ```
 */
export const makeAnswers = Effect.fnUntraced(function* (
  options: SocketOptions & { readonly answers: Answers }
): Effect.fn.Return<WorkloadApiServer, WorkloadApiServerError | InvalidConfigError.InvalidConfigError, Scope.Scope> {
  const { mode, socketPath } = yield* decode(options)
  const { answers } = options
  const run = yield* makeRunFork
  const server = yield* Effect.acquireRelease(
    Effect.sync(() => makeServer(run, answers)),
    (server) => Effect.sync(() => server.forceShutdown())
  )
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure())
  const listener = yield* listen({
    socketPath,
    mode,
    onConnection: (socket) => injector.injectConnection(socket)
  })
  return { endpoint: WorkloadEndpoint.format(WorkloadEndpoint.unix(socketPath)), ...listener }
})

/** SPIFFE_Workload_Endpoint section 6: no identity for the caller, or none at the moment. */
const toWorkloadApiError = ({ message, reason }: IdentityError.IdentityError): WorkloadApiError =>
  new WorkloadApiError({ reason: reason === "Withdrawn" ? "PermissionDenied" : "Unavailable", description: message })

const answersOf = (source: Context.Tag.Service<IdentityProvider.IdentityProvider>): Answers => {
  const changes = Stream.mapError(source.changes, toWorkloadApiError)
  return {
    x509Svids: Stream.map(changes, (context) =>
      WorkloadMessage.encodeX509SvidResponse(WorkloadMessage.toX509SvidResponse(context))
    ),
    x509Bundles: Stream.map(changes, (context) =>
      WorkloadMessage.encodeX509BundlesResponse(WorkloadMessage.toX509BundlesResponse(context))
    ),
    jwtBundles: changes.pipe(
      Stream.map(WorkloadMessage.encodeEmptyJwtBundlesResponse),
      Stream.changesWith((before, after) => Buffer.compare(before, after) === 0)
    )
  }
}

/**
 * Publishes a source until the scope closes: every caller is sent the present snapshot at once, and every change. A call
 * without the security header ends with `InvalidArgument`, a withdrawn identity with `PermissionDenied`, any other lack
 * of one with `Unavailable`. It issues no JWT-SVIDs: `FetchJWTBundles` answers with key sets that are empty,
 * `FetchJWTSVID` with `PermissionDenied`, `ValidateJWTSVID` with `InvalidArgument`; the WIT profile is `Unimplemented`.
 * Every process that can open the socket is the workload.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { IdentityProvider } from "@agentweave/spiffe"
 * import { WorkloadApiServer } from "@agentweave/workload-api"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const source = yield* IdentityProvider.IdentityProvider
 *   const server = yield* WorkloadApiServer.make({ socketPath: "/run/dev/agent.sock", source })
 *   yield* Effect.log(`export SPIFFE_ENDPOINT_SOCKET=${server.endpoint}`)
 *   return yield* Effect.never
 * }).pipe(Effect.scoped)
 * ```
 */
export const make = (
  options: SocketOptions & { readonly source: Context.Tag.Service<IdentityProvider.IdentityProvider> }
): Effect.Effect<WorkloadApiServer, WorkloadApiServerError | InvalidConfigError.InvalidConfigError, Scope.Scope> => {
  const { source, ...socket } = options
  return makeAnswers({ ...socket, answers: answersOf(source) })
}

/**
 * {@link make}, for as long as the layer lives.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { IdentityProvider } from "@agentweave/spiffe"
 * import { WorkloadApiServer } from "@agentweave/workload-api"
 * import { Effect, Layer } from "effect"
 *
 * const Agent = Layer.unwrapEffect(
 *   Effect.map(IdentityProvider.IdentityProvider, (source) =>
 *     WorkloadApiServer.layer({ socketPath: "/run/dev/agent.sock", source })
 *   )
 * )
 * ```
 */
export const layer = (
  options: SocketOptions & { readonly source: Context.Tag.Service<IdentityProvider.IdentityProvider> }
): Layer.Layer<never, WorkloadApiServerError | InvalidConfigError.InvalidConfigError> =>
  Layer.scopedDiscard(make(options))

/**
 * Publishes the program's own identity.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { NodeIdentity } from "@agentweave/transport-node"
 * import { WorkloadApiServer } from "@agentweave/workload-api"
 * import { Layer } from "effect"
 *
 * // Identity files of a certificate manager, for programs that ask the Workload API.
 * const Agent = WorkloadApiServer.layerIdentityProvider({ socketPath: "/run/dev/agent.sock" }).pipe(
 *   Layer.provide(NodeIdentity.layerFiles({ certificate: "svid.pem", key: "key.pem", bundle: "bundle.pem" }))
 * )
 * ```
 */
export const layerIdentityProvider = (
  options: SocketOptions
): Layer.Layer<
  never,
  WorkloadApiServerError | InvalidConfigError.InvalidConfigError,
  IdentityProvider.IdentityProvider
> => Layer.scopedDiscard(Effect.flatMap(IdentityProvider.IdentityProvider, (source) => make({ ...options, source })))
