/** Clients of the same procedures, each over one connection. */
import { connect } from "node:tls"
import { SecureSocket } from "@agentweave/transport"
import { Socket } from "@effect/platform"
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import { RpcClient, type RpcClientError, RpcSerialization } from "@effect/rpc"
import { Effect, Layer, type Scope } from "effect"
import type { Environment } from "../harness/Benchmark.js"
import { serverId } from "../harness/credentials.js"
import { Procedures } from "../servers/rpc.js"
import { services } from "./effects.js"
import { connectOptions } from "./promises.js"

export type Client = RpcClient.FromGroup<typeof Procedures, RpcClientError.RpcClientError>

export type Open = (environment: Environment, server: string) => Effect.Effect<Client, unknown, Scope.Scope>

const host = "127.0.0.1"

const over = <E>(socket: Layer.Layer<Socket.Socket, E>): Effect.Effect<Client, E, Scope.Scope> =>
  Effect.flatMap(
    Layer.build(
      RpcClient.layerProtocolSocket().pipe(Layer.provide(socket), Layer.provide(RpcSerialization.layerNdjson))
    ),
    (protocol) => Effect.provide(RpcClient.make(Procedures, { disableTracing: true }), protocol)
  )

/** The events of its connections are counted and not written: calls leave none. */
export const secure: Open = (environment, server) =>
  over(
    SecureSocket.layerSocket({ peer: serverId, host, port: environment.ports[server] ?? 0 }).pipe(
      Layer.provide(services(environment, "memory"))
    )
  )

/** Effect's own socket over `node:tls`, which knows of its server only that it is of the same authority. */
export const plain: Open = (environment, server) =>
  over(
    Layer.effect(
      Socket.Socket,
      NodeSocket.fromDuplex(
        Effect.acquireRelease(
          Effect.async<ReturnType<typeof connect>, Socket.SocketError>((resume) => {
            const socket = connect({ host, port: environment.ports[server] ?? 0, ...connectOptions(environment) })
            socket.setNoDelay(true)
            socket.once("secureConnect", () => resume(Effect.succeed(socket)))
            socket.once("error", (cause) =>
              resume(Effect.fail(new Socket.SocketGenericError({ reason: "Open", cause })))
            )
          }),
          (socket) => Effect.sync(() => socket.destroySoon())
        )
      )
    )
  )
