/** Two sides of a connection, each with an audit file of its own, and what their files say of it. */
import { mkdtempSync, rmSync } from "node:fs"
import { connect as connectTcp } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { PeerMatcher, type SpiffeId } from "@agentweave/spiffe"
import type { InvalidConfigError } from "@agentweave/spiffe/InvalidConfigError"
import type * as TestIdentity from "@agentweave/testkit/TestIdentity"
import { AuditEvent, AuditLog, Connector, TransportConfig } from "@agentweave/transport"
import { NodeAuditLog, NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { HttpClientRequest, HttpServer, HttpServerResponse } from "@effect/platform"
import { Context, Effect, Either, Exit, Layer, Schema, Scope } from "effect"
import { execute } from "./execute.js"
import { host, type Log, makeLog } from "./fixture.js"

export const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "reconcile-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** A scope that closes with the test at the latest. */
const ownScope = Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))

/** Events to a file, and to a record that can be waited for. */
export const audited = (path: string, options: Partial<NodeAuditLog.Options> = {}) => {
  const log = makeLog()
  return { log, layer: AuditLog.layerTee(NodeAuditLog.layerFile({ path, ...options }), log.layer) }
}

export const startServer = Effect.fnUntraced(function* (options: {
  readonly identity: TestIdentity.TestIdentity
  readonly authorize: SpiffeId.SpiffeId
  readonly audit: Layer.Layer<AuditLog.AuditLog, AuditLog.AuditError | InvalidConfigError>
}) {
  let handled = 0
  const scope = yield* ownScope
  const services = yield* HttpServer.serve(Effect.sync(() => HttpServerResponse.text(`served ${++handled}`))).pipe(
    Layer.provideMerge(NodeSecureServer.layer({ port: 0, host, authorize: PeerMatcher.exactly(options.authorize) })),
    Layer.provide(options.identity.layer),
    Layer.provide(options.audit),
    Layer.buildWithScope(scope)
  )
  const { address } = Context.get(services, HttpServer.HttpServer)
  if (address._tag !== "TcpAddress") return yield* Effect.dieMessage("expected a TCP address")
  return { port: address.port, handled: () => handled, close: Scope.close(scope, Exit.void) }
})

export const startClient = Effect.fnUntraced(function* (options: {
  readonly identity: TestIdentity.TestIdentity
  readonly audit: Layer.Layer<AuditLog.AuditLog, AuditLog.AuditError | InvalidConfigError>
}) {
  const scope = yield* ownScope
  const services = yield* NodeConnector.layer.pipe(
    Layer.provide(options.identity.layer),
    Layer.provide(options.audit),
    Layer.buildWithScope(scope)
  )
  const connector = Context.get(services, Connector.Connector)
  const config = Either.getOrThrow(TransportConfig.make({}))
  return {
    close: Scope.close(scope, Exit.void),
    connect: (port: number, peer: SpiffeId.SpiffeId) =>
      connector.connect({ matcher: PeerMatcher.exactly(peer), host, port, config, onClose: () => {} })
  }
})

export type Client = Effect.Effect.Success<ReturnType<typeof startClient>>

export const request = (connection: Connector.Connection, path = "/") =>
  Effect.flatMap(execute(connection, HttpClientRequest.get(path)), (response) => response.text)

/** One connection, one request, and the outcome. */
export const call = (client: Client, port: number, peer: SpiffeId.SpiffeId) =>
  Effect.scoped(Effect.either(Effect.flatMap(client.connect(port, peer), (connection) => request(connection))))

/** Writes bytes that are no handshake, and waits until the connection is closed. */
export const rawBytes = (port: number, bytes: string | Uint8Array): Effect.Effect<void> =>
  Effect.async((resume) => {
    const socket = connectTcp({ host, port }, () => socket.write(bytes))
    socket.on("error", () => {})
    socket.resume()
    socket.on("close", () => resume(Effect.void))
  })

const decode = Schema.decodeUnknownSync(AuditEvent.AuditEvent)

/** The events of a file, read through their schema. */
export const eventsOf = (text: string): ReadonlyArray<AuditEvent.AuditEvent> =>
  text
    .trim()
    .split("\n")
    .flatMap((line) => {
      const { event } = JSON.parse(line)
      return event === undefined ? [] : [decode(event)]
    })

/** What became of each connection, in the order of attempts: the tags and reasons of its events. */
export const histories = (events: ReadonlyArray<AuditEvent.AuditEvent>): ReadonlyArray<string> => {
  const byConnection = new Map<string, Array<string>>()
  for (const event of events) {
    if (!("connectionId" in event) || AuditEvent.isRequest(event)) continue
    const steps = byConnection.get(event.connectionId) ?? []
    byConnection.set(event.connectionId, steps)
    const reason = event._tag === "ConnectionRefused" ? ` ${event.error} ${event.reason}` : ""
    steps.push(`${event._tag.replace("Connection", "")}${reason}`)
  }
  return Array.from(byConnection.values(), (steps) => steps.join(", "))
}

export const served = "Attempted, Established, Closed"
export const refused = (error: string, reason: string) => `Attempted, Refused ${error} ${reason}`
export const distrusted = (reason: string) => refused("PeerVerificationError", reason)

export const count = <Tag extends AuditEvent.AuditEvent["_tag"]>(log: Log, tag: Tag) => log.all(tag).length

/** As many ends are on record as attempts. */
export const settled = (log: Log, attempts: number): Effect.Effect<void> =>
  Effect.gen(function* () {
    const ends = () => count(log, "ConnectionRefused") + count(log, "ConnectionClosed")
    while (ends() < attempts) {
      yield* Effect.raceFirst(
        log.nth("ConnectionRefused", count(log, "ConnectionRefused")),
        log.nth("ConnectionClosed", count(log, "ConnectionClosed"))
      )
    }
  })
