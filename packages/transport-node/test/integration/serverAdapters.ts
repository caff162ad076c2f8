/**
 * Everything that a program can serve verified peers by, as rows of one table. Each answers a caller with its SPIFFE ID. What
 * holds for all of them is asked of each in `adaptersServer.test.ts`, by clients that speak their protocols byte by byte.
 */
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as PeerIdentity from "@agentweave/transport/PeerIdentity"
import * as NodeSecureServer from "@agentweave/transport-node/NodeSecureServer"
import { HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { Effect, Exit, Layer, Scope } from "effect"
import { host, type Identity, identityLayer, type Log, makeLog, type ServerOptions, startServer } from "./fixture.js"
import { frameworks } from "./frameworks.js"
import { client, serveRpc, type Way, ways } from "./rpcFixture.js"
import { type Handler, http2, startSocketServer } from "./socketFixture.js"

export interface Serving {
  readonly port: number
  readonly log: Log
  /** How often the program's own code was reached. */
  readonly handled: () => number
  readonly close: Effect.Effect<void>
}

export interface ServerAdapter {
  readonly name: string
  /** What a client sends to be told its name: the first at once, each further one when it was sent something. */
  readonly messages: ReadonlyArray<string | Uint8Array>
  /** The protocols it names (ALPN). */
  readonly protocols?: ReadonlyArray<string>
  /** Whether each request is on record, beside its connection. */
  readonly recordsRequests: boolean
  /** Serves `spiffe://example.org/client` and nobody else. */
  readonly start: (identity: Identity) => Effect.Effect<Serving, unknown, Scope.Scope>
}

const get = "GET /whoami HTTP/1.1\r\nhost: adapter.test\r\n\r\n"

const upgrade = (path: string): string =>
  `GET ${path} HTTP/1.1\r\nhost: adapter.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n` +
  "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"

/** A call of `WhoAmI`, as newline-delimited JSON. */
const rpcCall = `${JSON.stringify({ _tag: "Request", id: "1", tag: "WhoAmI", payload: null, headers: [] })}\n`

const post =
  "POST /rpc HTTP/1.1\r\nhost: adapter.test\r\ncontent-type: application/ndjson\r\n" +
  `content-length: ${Buffer.byteLength(rpcCall)}\r\n\r\n${rpcCall}`

/** A text of 126 bytes or more as one message of a WebSocket's client, under a mask of zeros (RFC 6455 section 5.2). */
const webSocketMessage = (text: string): Uint8Array => {
  const payload = Buffer.from(text.padEnd(126))
  const head = Buffer.from([0x81, 0xfe, payload.length >> 8, payload.length & 0xff, 0, 0, 0, 0])
  return Buffer.concat([head, payload])
}

/** The preface, empty settings, and one request whose fields are literals (RFC 9113 section 3.4, RFC 7541 section 6.2). */
const http2Get = (path: string, authority: string): Uint8Array => {
  const get = Buffer.from([0x82, 0x87])
  const [pathName, authorityName] = [0x04, 0x01]
  const literal = (name: number, value: string) =>
    Buffer.concat([Buffer.from([name, value.length]), Buffer.from(value)])
  const fields = Buffer.concat([get, literal(pathName, path), literal(authorityName, authority)])
  return Buffer.concat([
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
    Buffer.from([0, 0, fields.length, 1, 5, 0, 0, 0, 1]),
    fields
  ])
}

const authorize = PeerMatcher.exactly(client)

const httpApp = (app: NonNullable<ServerOptions["app"]>) => (identity: Identity) =>
  startServer({ identity, authorize, app, gracefulShutdownTimeout: "10 millis" })

const socketServer =
  (handler: Handler, protocols: ReadonlyArray<string> = []) =>
  (identity: Identity) =>
    startSocketServer({ identity, authorize, handler, protocols })

const rpc = (way: Way) => (identity: Identity) =>
  Effect.map(serveRpc(way, identity), ({ seen, ...serving }) => ({ ...serving, handled: () => seen.calls }))

const listener = Effect.fnUntraced(function* (name: string, identity: Identity) {
  const log = makeLog()
  let handled = 0
  const app = yield* Effect.promise(async () => frameworks[name]?.())
  if (app === undefined) return yield* Effect.dieMessage(`no framework ${name}`)
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const address = yield* NodeSecureServer.makeListener(
    (request, response) => {
      handled++
      app(request, response)
    },
    { port: 0, host, authorize, gracefulShutdownTimeout: "10 millis" }
  ).pipe(Effect.provide(Layer.merge(identityLayer(identity), log.layer)), Scope.extend(scope))
  if (address._tag !== "TcpAddress") return yield* Effect.dieMessage("expected a TCP address")
  return { port: address.port, log, handled: () => handled, close: Scope.close(scope, Exit.void) }
})

const greet: Handler = (socket) =>
  Effect.gen(function* () {
    const { spiffeId } = yield* PeerIdentity.callerOf(socket)
    const write = yield* socket.writer
    yield* socket.run(() => write(spiffeId))
  })

export const serverAdapters: ReadonlyArray<ServerAdapter> = [
  {
    name: "NodeSecureServer.layer",
    messages: [get],
    recordsRequests: true,
    start: httpApp(Effect.map(PeerIdentity.caller, ({ spiffeId }) => HttpServerResponse.text(spiffeId)))
  },
  {
    name: "NodeSecureServer.layer, with a WebSocket",
    messages: [upgrade("/whoami")],
    recordsRequests: true,
    start: httpApp(
      Effect.gen(function* () {
        const socket = yield* HttpServerRequest.upgrade
        const { spiffeId } = yield* PeerIdentity.current
        const write = yield* socket.writer
        yield* socket.run(() => {}, { onOpen: Effect.orDie(write(spiffeId)) })
        return HttpServerResponse.empty()
      }).pipe(Effect.scoped, Effect.orDie)
    )
  },
  // The others are asked in `frameworks.test.ts`.
  ...["node:http", "Express"].map(
    (name): ServerAdapter => ({
      name: `NodeSecureServer.layerListener, with ${name}`,
      messages: [get],
      recordsRequests: true,
      start: (identity) => listener(name, identity)
    })
  ),
  {
    name: "NodeSecureSocketServer.layer",
    messages: ["who am I?"],
    recordsRequests: false,
    start: socketServer(greet)
  },
  {
    name: "NodeSecureSocketServer.layer, with node:http2",
    messages: [http2Get("/whoami", "adapter.test")],
    protocols: ["h2"],
    recordsRequests: false,
    start: socketServer(http2, ["h2"])
  },
  { name: "RpcServer over HTTP", messages: [post], recordsRequests: true, start: rpc(ways.HTTP) },
  {
    name: "RpcServer over HTTP, by Effect's own protocol",
    messages: [post],
    recordsRequests: true,
    start: rpc(ways["HTTP, by Effect's own protocol"])
  },
  {
    name: "RpcServer over a WebSocket",
    messages: [upgrade("/rpc"), webSocketMessage(rpcCall)],
    recordsRequests: true,
    start: rpc(ways.WebSocket)
  },
  {
    name: "RpcServer over a secure socket",
    messages: [rpcCall],
    recordsRequests: false,
    start: rpc(ways["a secure socket"])
  }
]
