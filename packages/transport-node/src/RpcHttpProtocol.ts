/**
 * The HTTP protocol of an `RpcServer`, with backpressure: a stream is made no faster than its client reads it.
 *
 * @since 0.1.0
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as RpcSerialization from "@effect/rpc/RpcSerialization"
import * as RpcServer from "@effect/rpc/RpcServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

type Protocol = typeof RpcServer.Protocol.Service

/** How many chunks of the streams of one request may wait to be sent: as many as a client of `RpcClient` buffers by default. */
const mostWaiting = 16

/** A permit for each chunk that may wait to be sent in answer to the current request. */
class Room extends Context.Tag("@agentweave/transport-node/RpcHttpProtocol/Room")<Room, Effect.Semaphore>() {}

const takeRoom: Effect.Effect<void> = Effect.contextWithEffect((context: Context.Context<never>) =>
  Option.match(Context.getOption(context, Room), { onNone: () => Effect.void, onSome: (room) => room.take(1) })
)

/** A protocol whose `send`, which the fiber of a call runs, waits for room. The last message of a call never waits. */
const paced = (protocol: Protocol): Protocol => ({
  ...protocol,
  send: (clientId, response, transferables) => {
    const send = protocol.send(clientId, response, transferables)
    return response._tag === "Chunk" ? Effect.zipRight(takeRoom, send) : send
  }
})

/** An app that gives room with each message of its response that is sent. */
const givingRoom = (app: HttpApp.Default<never, Scope.Scope>): HttpApp.Default<never, Scope.Scope> =>
  Effect.flatMap(Effect.makeSemaphore(mostWaiting), (room) =>
    Effect.map(Effect.provideService(app, Room, room), (response) => {
      const { body } = response
      if (body._tag !== "Stream") return response
      const stream = Stream.tap(body.stream, () => room.release(1))
      return HttpServerResponse.setBody(response, HttpBody.stream(stream, body.contentType, body.contentLength))
    })
  )

/**
 * The protocol, and the app that serves it under a path of the program's: that of `RpcServer.makeProtocolWithHttpApp`, but that
 * a call whose client does not read waits once 16 chunks of its stream are not sent yet. Effect's own (3.22) keeps them all in
 * memory. A serialization without framing, such as `RpcSerialization.layerJson`, has no streams: each answer is kept until
 * it is whole.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { RpcHttpProtocol } from "@agentweave/transport-node"
 * import { HttpLayerRouter } from "@effect/platform"
 * import { RpcServer } from "@effect/rpc"
 * import { Effect, Layer } from "effect"
 *
 * const Protocol = Layer.effect(
 *   RpcServer.Protocol,
 *   Effect.gen(function* () {
 *     const router = yield* HttpLayerRouter.HttpRouter
 *     const { httpApp, protocol } = yield* RpcHttpProtocol.make
 *     yield* router.add("POST", "/rpc", httpApp)
 *     return protocol
 *   })
 * )
 * ```
 */
export const make: Effect.Effect<
  { readonly protocol: Protocol; readonly httpApp: HttpApp.Default<never, Scope.Scope> },
  never,
  RpcSerialization.RpcSerialization
> = Effect.gen(function* () {
  const { includesFraming } = yield* RpcSerialization.RpcSerialization
  const { httpApp, protocol } = yield* RpcServer.makeProtocolWithHttpApp
  return includesFraming ? { protocol: paced(protocol), httpApp: givingRoom(httpApp) } : { protocol, httpApp }
})

/**
 * {@link make} at a path of `HttpRouter.Default`: in place of `RpcServer.layerProtocolHttp`. A client needs nothing of it.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { RpcHttpProtocol } from "@agentweave/transport-node"
 * import { HttpRouter } from "@effect/platform"
 * import { Rpc, RpcGroup, RpcSerialization, RpcServer } from "@effect/rpc"
 * import { Layer, Schema, Stream } from "effect"
 *
 * class Ticks extends RpcGroup.make(Rpc.make("Ticks", { success: Schema.Number, stream: true })) {}
 *
 * const Api = HttpRouter.Default.serve().pipe(
 *   Layer.provide(RpcServer.layer(Ticks)),
 *   Layer.provide(Ticks.toLayer({ Ticks: () => Stream.iterate(0, (n) => n + 1) })),
 *   Layer.provide(RpcHttpProtocol.layer({ path: "/rpc" })),
 *   Layer.provide(RpcSerialization.layerNdjson)
 * )
 * ```
 */
export const layer = (options: {
  readonly path: HttpRouter.PathInput
}): Layer.Layer<RpcServer.Protocol, never, RpcSerialization.RpcSerialization> =>
  Layer.effect(
    RpcServer.Protocol,
    Effect.gen(function* () {
      const router = yield* HttpRouter.Default
      const { httpApp, protocol } = yield* make
      yield* router.post(options.path, httpApp)
      return protocol
    })
  ).pipe(Layer.provide(HttpRouter.Default.Live))
