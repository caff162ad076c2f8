/** A runner, whatever carries its messages. */
import { NumberIn, OneOf } from "@agentweave/spiffe/OptionsDecoder"
import type { MessageStorage } from "@effect/cluster/MessageStorage"
import * as RunnerHealth from "@effect/cluster/RunnerHealth"
import * as RunnerServer from "@effect/cluster/RunnerServer"
import type { RunnerStorage } from "@effect/cluster/RunnerStorage"
import * as Runners from "@effect/cluster/Runners"
import * as Sharding from "@effect/cluster/Sharding"
import { ShardingConfig } from "@effect/cluster/ShardingConfig"
import * as Socket from "@effect/platform/Socket"
import * as RpcClient from "@effect/rpc/RpcClient"
import { RpcClientError } from "@effect/rpc/RpcClientError"
import * as RpcSerialization from "@effect/rpc/RpcSerialization"
import type * as RpcServer from "@effect/rpc/RpcServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as membership from "./membership.js"

type Storage = MessageStorage | RunnerStorage

/** Serves what the protocol brings, once it is registered; the other runners are those that were verified. */
export const server: Layer.Layer<
  Sharding.Sharding | Runners.Runners,
  never,
  RpcServer.Protocol | Runners.RpcClientProtocol | ShardingConfig | Storage
> = RunnerServer.layer.pipe(
  Layer.provideMerge(Sharding.layer),
  Layer.provide([membership.layer, RunnerHealth.layerPing]),
  Layer.provideMerge(Runners.layerRpc)
)

/** Sends, and is never registered. */
export const clientOnly: Layer.Layer<
  Sharding.Sharding | Runners.Runners,
  never,
  Runners.RpcClientProtocol | ShardingConfig | Storage
> = Sharding.layer.pipe(
  Layer.provide([membership.layer, RunnerHealth.layerNoop]),
  Layer.provideMerge(Runners.layerRpc),
  Layer.updateService(ShardingConfig, (config) => ({ ...config, runnerAddress: Option.none() }))
)

/** How soon a connection that was lost is made again: at once after one that has held, less and less often while none does. */
const reconnect = Schedule.exponential("100 millis").pipe(
  Schedule.union(Schedule.spaced("2 seconds")),
  Schedule.jittered,
  Schedule.resetAfter("3 seconds")
)

const writeFailed = (cause: Socket.SocketError) =>
  new RpcClientError({ reason: "Protocol", message: "a message could not be written", cause })

/**
 * Messages over a socket. A write that fails is an error, by which the cluster sends the message again, and not a defect: the
 * connection can end with its credentials at any moment.
 */
export const overSocket = (
  socket: Socket.Socket
): Effect.Effect<RpcClient.Protocol["Type"], never, RpcSerialization.RpcSerialization | Scope.Scope> =>
  RpcClient.makeProtocolSocket({ retrySchedule: reconnect }).pipe(
    Effect.provideService(Socket.Socket, socket),
    Effect.map((protocol) => ({
      ...protocol,
      send: (request, transferables) =>
        Effect.catchSomeDefect(protocol.send(request, transferables), (defect) =>
          Socket.isSocketError(defect) ? Option.some(writeFailed(defect)) : Option.none()
        )
    }))
  )

/** The fields of options that say how messages are written. */
export const serializationFields = {
  serialization: Schema.optionalWith(OneOf("msgpack", "ndjson"), { default: () => "msgpack" as const }),
  maxMessageSize: Schema.optionalWith(NumberIn(1), { default: () => 16 * 1024 * 1024 })
}

/** The serialization, with a bound for what is kept of a message that has not come whole. */
export const serialization = (options: {
  readonly serialization: "msgpack" | "ndjson"
  readonly maxMessageSize: number
}): Layer.Layer<RpcSerialization.RpcSerialization> =>
  options.serialization === "ndjson"
    ? RpcSerialization.layerNdjsonWith({ maxBufferSize: options.maxMessageSize })
    : RpcSerialization.layerMsgPackWith({ maxBufferSize: options.maxMessageSize })
