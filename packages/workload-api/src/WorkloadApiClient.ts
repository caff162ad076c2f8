/**
 * The wire: calls to a Workload API, as streams of the messages they bring.
 *
 * @since 0.1.0
 */
import { type InvalidConfigError, OptionsDecoder } from "@agentweave/spiffe"
import { Client, type ClientReadableStream, Metadata, type ServiceError, status as Status } from "@grpc/grpc-js"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { LocalCredentials } from "./internal/localCredentials.js"
import * as methods from "./internal/methods.js"
import { WorkloadApiError, type WorkloadApiErrorReason } from "./WorkloadApiError.js"
import type { WorkloadEndpoint } from "./WorkloadEndpoint.js"
import { defaultLimits, type Limits } from "./WorkloadMessage.js"

/**
 * One call each time a stream is run. A message is the bytes as they came, redacted for the keys in it; a stream fails
 * when the call ends with an error, and ends when the endpoint ends the call. All that is done with messages rests on
 * this seam, so that a test can put its own streams here.
 *
 * @since 0.1.0
 * @category tags
 */
export class WorkloadApiClient extends Context.Tag("@agentweave/workload-api/WorkloadApiClient")<
  WorkloadApiClient,
  {
    /** The answers of `FetchX509SVID`. */
    readonly x509Svids: Stream.Stream<Redacted.Redacted<Uint8Array>, WorkloadApiError>
    /** The answers of `FetchX509Bundles`. */
    readonly x509Bundles: Stream.Stream<Redacted.Redacted<Uint8Array>, WorkloadApiError>
  }
>() {}

/**
 * Options of the client, each with its default.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The largest message to take, in bytes. Default: what the default limits need, see {@link messageBytesFor}. */
  readonly maxMessageBytes?: number | undefined
}

/** For an SVID with its chain, key and bundle, and for a federated bundle: some forty certificates with RSA-4096 keys. */
const bytesPerEntry = 64 * 1024

/**
 * How large a message may be that keeps these limits: 64 KiB for each SVID and each bundle, 68.75 MiB with the default
 * limits. It is a limit, not memory that is set aside.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { WorkloadApiClient, WorkloadMessage } from "@agentweave/workload-api"
 *
 * const limits = { ...WorkloadMessage.defaultLimits, maxBundles: 50 }
 * const options: WorkloadApiClient.Options = { maxMessageBytes: WorkloadApiClient.messageBytesFor(limits) }
 * ```
 */
export const messageBytesFor = ({ maxBundles, maxSvids }: Limits): number => (maxSvids + maxBundles) * bytesPerEntry

/** The resolver schemes that take an address as it is: nothing is looked up. */
const target = (endpoint: WorkloadEndpoint): string => {
  if (endpoint._tag === "Unix") return `unix://${endpoint.path}`
  return endpoint.host.includes(":")
    ? `ipv6:[${endpoint.host}]:${endpoint.port}`
    : `ipv4:${endpoint.host}:${endpoint.port}`
}

const reasons: { readonly [code: number]: WorkloadApiErrorReason } = {
  [Status.INVALID_ARGUMENT]: "InvalidArgument",
  [Status.PERMISSION_DENIED]: "PermissionDenied",
  [Status.UNAVAILABLE]: "Unavailable",
  [Status.UNIMPLEMENTED]: "Unimplemented",
  [Status.RESOURCE_EXHAUSTED]: "LimitExceeded",
  [Status.CANCELLED]: "Ended"
}

/** A status in one line, without the empty note that @grpc/grpc-js ends some of its texts with. */
const oneLine = (details: string): string =>
  details
    .replaceAll(/[\s\p{Cc}]+/gu, " ")
    .replace(/\.? ?Resolution note: ?$/, "")
    .trim()

const fromStatus = ({ code, details }: Pick<ServiceError, "code" | "details">): WorkloadApiError =>
  new WorkloadApiError({
    reason: reasons[code] ?? "Failed",
    description: `status ${Status[code] ?? code}: ${oneLine(details)}`
  })

/** SPIFFE_Workload_Endpoint section 3: on every request, against forged ones. */
const metadata = (): Metadata => {
  const header = new Metadata()
  header.set(methods.securityHeader, methods.securityValue)
  return header
}

interface Call {
  readonly client: Client
  readonly credentials: LocalCredentials
  readonly stream: ClientReadableStream<Redacted.Redacted<Uint8Array>>
}

/**
 * A channel for one call. gRPC's own reconnecting, retrying, name resolution and proxies stay out of it: when to try
 * again is decided above, and a proxy from the environment must never see a key.
 */
const open = (endpoint: WorkloadEndpoint, method: string, maxMessageBytes: number): Call => {
  const credentials = new LocalCredentials()
  const client = new Client(target(endpoint), credentials, {
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_retries": 0,
    "grpc.enable_http_proxy": 0,
    "grpc.enable_channelz": 0,
    "grpc.service_config_disable_resolution": 1
  })
  const stream = client.makeServerStreamRequest(
    method,
    () => Buffer.alloc(0),
    (bytes) => Redacted.make<Uint8Array>(bytes),
    undefined,
    metadata()
  )
  return { client, credentials, stream }
}

/** The cancelled call still reports that it was cancelled: its listeners stay, and do nothing any more. */
const close = ({ client, credentials, stream }: Call): Effect.Effect<void> =>
  Effect.sync(() => {
    stream.cancel()
    client.close()
    credentials.disconnect()
  })

/**
 * The seam to gRPC's callbacks. Every message is the whole truth, so when nobody reads for a while the oldest are
 * dropped.
 */
const messages = (
  endpoint: WorkloadEndpoint,
  method: string,
  maxMessageBytes: number
): Stream.Stream<Redacted.Redacted<Uint8Array>, WorkloadApiError> =>
  Stream.asyncPush(
    (emit) =>
      Effect.acquireRelease(
        Effect.try({
          try: () => open(endpoint, method, maxMessageBytes),
          catch: (cause) => new WorkloadApiError({ reason: "Failed", description: String(cause) })
        }),
        close
      ).pipe(
        Effect.map(({ stream }) =>
          stream
            .on("data", emit.single)
            .on("end", () => emit.end())
            .on("error", (error: ServiceError) => emit.fail(fromStatus(error)))
        )
      ),
    { bufferSize: 16, strategy: "sliding" }
  )

/**
 * A client over gRPC. The endpoint is local and offers no TLS, as the standard has it (SPIFFE_Workload_Endpoint section
 * 3.1).
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { WorkloadApiClient, WorkloadEndpoint } from "@agentweave/workload-api"
 * import { Effect, Redacted, Stream } from "effect"
 *
 * const agent = WorkloadApiClient.make(WorkloadEndpoint.unix("/run/spire/agent.sock"))
 *
 * const sizes = Stream.runForEach(agent.x509Svids, (message) => Effect.log(`${Redacted.value(message).length} bytes`))
 * ```
 */
export const make = (endpoint: WorkloadEndpoint, options: Options = {}): Context.Tag.Service<WorkloadApiClient> => {
  const { maxMessageBytes = messageBytesFor(defaultLimits) } = options
  return {
    x509Svids: messages(endpoint, methods.paths.fetchX509Svid, maxMessageBytes),
    x509Bundles: messages(endpoint, methods.paths.fetchX509Bundles, maxMessageBytes)
  }
}

const decode = OptionsDecoder.decoder(
  "WorkloadApiClient",
  Schema.Struct({ maxMessageBytes: Schema.optional(OptionsDecoder.NumberIn(1)) })
)

/**
 * A client of the agent at this endpoint. It connects when it is called.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { WorkloadApi, WorkloadApiClient, WorkloadEndpoint } from "@agentweave/workload-api"
 * import { Layer } from "effect"
 *
 * const identity = WorkloadApi.layerClient().pipe(
 *   Layer.provide(WorkloadApiClient.layer(WorkloadEndpoint.unix("/run/spire/agent.sock")))
 * )
 * ```
 */
export const layer = (
  endpoint: WorkloadEndpoint,
  options: Options = {}
): Layer.Layer<WorkloadApiClient, InvalidConfigError.InvalidConfigError> =>
  Layer.effect(
    WorkloadApiClient,
    Effect.map(decode(options), (read) => make(endpoint, read))
  )
