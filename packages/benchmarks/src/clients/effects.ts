/** HTTP clients in Effect, each over ten connections of its own to one server. */
import { IdentityProvider } from "@agentweave/spiffe"
import { PeerDirectory, SecureChannel, Transport } from "@agentweave/transport"
import { NodeConnector, NodeDispatcher } from "@agentweave/transport-node"
import { HttpBody, HttpClient, HttpClientRequest, type HttpClientResponse } from "@effect/platform"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { request as undiciRequest } from "undici"
import { layerCounting, layerFile, recorded } from "../harness/audit.js"
import type { Environment } from "../harness/Benchmark.js"
import { contextOf, serverId } from "../harness/credentials.js"
import { tlsOptions } from "../harness/tls.js"
import { type Call, connections, type Json, originOf, undiciPool } from "./promises.js"

/** A client and what to put before a path. */
export interface Opened {
  readonly base: string
  readonly execute: (
    request: HttpClientRequest.HttpClientRequest
  ) => Effect.Effect<HttpClientResponse.HttpClientResponse, unknown>
}

export type Open = (environment: Environment, server: string) => Effect.Effect<Opened, unknown, Scope.Scope>

const contentType = "application/json"

/** One request, described anew, and its response's body read as JSON. */
export const json = ({ base, execute }: Opened, { body, method, path }: Call): Effect.Effect<unknown, unknown> => {
  const request =
    method === "GET"
      ? HttpClientRequest.get(base + path)
      : HttpClientRequest.setBody(HttpClientRequest.post(base + path), HttpBody.text(body, contentType))
  return Effect.flatMap(execute(request), (response) =>
    response.status === 200 ? response.json : Effect.dieMessage(`status ${response.status}`)
  )
}

/** Where audit events go. */
export type Audit = "file" | "memory"

/** What our own clients run on. */
export const services = (
  { credentials }: Environment,
  audit: Audit,
  identity: Layer.Layer<IdentityProvider.IdentityProvider> = IdentityProvider.layerStatic(
    contextOf(credentials, credentials.client)
  )
) =>
  NodeConnector.layer.pipe(
    Layer.provideMerge(audit === "file" ? layerFile() : layerCounting(recorded())),
    Layer.provideMerge(identity)
  )

/** A channel of its own. Its events go to a file unless told otherwise; metrics are always on. */
export const secureChannel =
  (audit: Audit = "file"): Open =>
  (environment, server) =>
    Effect.gen(function* () {
      const context = yield* Layer.build(services(environment, audit))
      const channel = yield* Effect.provide(
        SecureChannel.make({ peer: serverId, baseUrl: originOf(environment, server), config: { connections } }),
        context
      )
      return { base: "", execute: channel.execute }
    })

/** Retry over breaker over pool. */
export const transport: Open = (environment, server) =>
  Effect.gen(function* () {
    const directory = PeerDirectory.layerStatic({ [serverId]: originOf(environment, server) })
    const layer = Transport.layer({ pool: { maxConnectionsPerTarget: connections, acquireTimeout: "30 seconds" } })
    const context = yield* Layer.build(Layer.provide(layer, Layer.merge(directory, services(environment, "file"))))
    const client = yield* Context.get(context, Transport.Transport).client(serverId)
    return { base: "", execute: client.execute }
  })

/** Effect's client over the very pool that the bare undici contenders use. */
const overUndici =
  (change: (client: HttpClient.HttpClient) => HttpClient.HttpClient): Open =>
  (environment, server) =>
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => undiciPool(environment, server)),
        (pool) => Effect.promise(() => pool.destroy())
      ),
      (pool) => ({
        base: originOf(environment, server),
        execute: change(NodeHttpClient.makeUndici(pool)).execute
      })
    )

export const undici: Open = overUndici((client) => client)

export const undiciWithoutTracer: Open = overUndici(HttpClient.withTracerDisabledWhen(() => true))

export const httpsAgent: Open = (environment, server) => {
  const { credentials } = environment
  const agent = NodeHttpClient.makeAgentLayer({
    ...tlsOptions(credentials, credentials.client),
    keepAlive: true,
    maxSockets: connections,
    checkServerIdentity: () => undefined
  })
  const layer = Layer.provide(NodeHttpClient.layerWithoutAgent, agent)
  return Effect.map(Layer.build(layer), (context) => ({
    base: originOf(environment, server),
    execute: Context.get(context, HttpClient.HttpClient).execute
  }))
}

/** undici's own call over a dispatcher of ours: what a library that takes a `Dispatcher` has of a channel. */
export const viaDispatcher = (environment: Environment, server: string): Json => {
  const scope = Effect.runSync(Scope.make())
  const opened = Effect.runPromise(
    Effect.gen(function* () {
      const context = yield* Layer.build(services(environment, "file"))
      const channel = yield* Effect.provide(
        SecureChannel.make({ peer: serverId, baseUrl: originOf(environment, server), config: { connections } }),
        context
      )
      return yield* NodeDispatcher.make(channel)
    }).pipe(Scope.extend(scope))
  )
  return {
    request: async ({ body, method, path }) => {
      const dispatcher = await opened
      const response = await undiciRequest(originOf(environment, server) + path, {
        dispatcher,
        method,
        ...(method === "POST" ? { headers: { "content-type": contentType }, body } : undefined)
      })
      if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`)
      return response.body.json()
    },
    stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}
