/**
 * Workloads, hostile peers and their records for the tests in this folder: real sockets on 127.0.0.1, every port 0.
 */
import type { AddressInfo, Socket } from "node:net"
import * as tls from "node:tls"
import * as IdentityProvider from "@agentweave/spiffe/IdentityProvider"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type * as X509Context from "@agentweave/spiffe/X509Context"
import type * as Credentials from "@agentweave/testkit/Credentials"
import type * as TestIdentity from "@agentweave/testkit/TestIdentity"
import * as AuditEvent from "@agentweave/transport/AuditEvent"
import * as AuditLog from "@agentweave/transport/AuditLog"
import * as Connector from "@agentweave/transport/Connector"
import type * as PeerIdentity from "@agentweave/transport/PeerIdentity"
import * as SecureChannel from "@agentweave/transport/SecureChannel"
import * as TransportConfig from "@agentweave/transport/TransportConfig"
import * as NodeConnector from "@agentweave/transport-node/NodeConnector"
import * as NodeSecureServer from "@agentweave/transport-node/NodeSecureServer"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { afterAll, beforeAll, it } from "@effect/vitest"
import {
  Deferred,
  Effect,
  Either,
  Exit,
  Layer,
  Redacted,
  type Runtime,
  Scope,
  TestClock,
  TestContext,
  type TestServices
} from "effect"

export const host = "127.0.0.1"

/**
 * `scoped` tests of a file that share what a layer builds once. The `layer` of \@effect/vitest 0.30 would give what it
 * built to all files that come after in the same process: it changes the one `it` there is.
 */
export const sharing = <R, E>(shared: Layer.Layer<R, E>) => {
  const scope = Effect.runSync(Scope.make())
  let runtime: Runtime.Runtime<R | TestServices.TestServices>
  beforeAll(async () => {
    const all = Layer.provideMerge(shared, TestContext.TestContext)
    runtime = await Effect.runPromise(Scope.extend(Layer.toRuntime(all), scope))
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
  return {
    scoped: <A, E2>(
      name: string,
      test: () => Effect.Effect<A, E2, R | TestServices.TestServices | Scope.Scope>
    ): void => it.live(name, () => Effect.suspend(() => Effect.provide(Effect.scoped(test()), runtime)))
  }
}

/** OpenSSL judges dates by the system's clock, so the test's clock begins there. It moves only when a test moves it. */
export const realTime: Effect.Effect<void> = Effect.suspend(() => TestClock.setTime(Date.now()))

type EventOf<Tag extends AuditEvent.AuditEvent["_tag"]> = Extract<AuditEvent.AuditEvent, { readonly _tag: Tag }>

/** An audit log that can be waited for. */
export interface Log {
  readonly events: ReadonlyArray<AuditEvent.AuditEvent>
  /** The tags of the events of connections, requests left out. */
  readonly connections: () => ReadonlyArray<string>
  readonly layer: Layer.Layer<AuditLog.AuditLog>
  readonly all: <Tag extends AuditEvent.AuditEvent["_tag"]>(tag: Tag) => ReadonlyArray<EventOf<Tag>>
  /** The event of its kind with this index, as soon as there is one. */
  readonly nth: <Tag extends AuditEvent.AuditEvent["_tag"]>(tag: Tag, index?: number) => Effect.Effect<EventOf<Tag>>
}

const full = new AuditLog.AuditError({ reason: "Full", description: "expected room for an event, got none" })

export const makeLog = (refuses: (event: AuditEvent.AuditEvent) => boolean = () => false): Log => {
  const events: Array<AuditEvent.AuditEvent> = []
  const waiters = new Set<() => void>()
  const all: Log["all"] = (tag) => events.filter((event): event is EventOf<typeof tag> => event._tag === tag)
  return {
    events,
    connections: () => events.filter((event) => !AuditEvent.isRequest(event)).map(({ _tag }) => _tag),
    all,
    layer: Layer.succeed(AuditLog.AuditLog, {
      unsafeRecord: (event) => {
        if (refuses(event)) return full
        events.push(event)
        for (const waiter of Array.from(waiters)) waiter()
        return undefined
      }
    }),
    nth: (tag, index = 0) =>
      Effect.async((resume) => {
        const look = () => {
          const found = all(tag)[index]
          if (found === undefined) return
          waiters.delete(look)
          resume(Effect.succeed(found))
        }
        waiters.add(look)
        look()
        return Effect.sync(() => waiters.delete(look))
      })
  }
}

export type Identity = X509Context.X509Context | TestIdentity.TestIdentity

export const identityLayer = (identity: Identity): Layer.Layer<IdentityProvider.IdentityProvider> =>
  "layer" in identity ? identity.layer : IdentityProvider.layerStatic(identity)

type App = HttpApp.Default<never, PeerIdentity.PeerIdentity | Scope.Scope>

export interface ServerOptions extends Partial<Omit<NodeSecureServer.Options, "authorize">> {
  readonly identity: Identity
  readonly authorize: PeerMatcher.PeerMatcher | SpiffeId.SpiffeId
  /** Default: 200 with the path as text. */
  readonly app?: App | undefined
  readonly middleware?: ((app: App) => App) | undefined
  /** Says which events the audit log refuses. Default: none. */
  readonly refuses?: ((event: AuditEvent.AuditEvent) => boolean) | undefined
}

export interface RunningServer {
  readonly port: number
  readonly log: Log
  /** How many requests reached the handler. */
  readonly handled: () => number
  /** Closes the server's scope; done when it is closed. It closes with the test's scope at the latest. */
  readonly close: Effect.Effect<void>
}

const matcherOf = (matcher: PeerMatcher.PeerMatcher | SpiffeId.SpiffeId): PeerMatcher.PeerMatcher =>
  typeof matcher === "string" ? PeerMatcher.exactly(matcher) : matcher

export const startServer = Effect.fnUntraced(function* (serverOptions: ServerOptions) {
  const { app, authorize, identity, middleware = (app: App) => app, refuses, ...options } = serverOptions
  const log = makeLog(refuses)
  let handled = 0
  // Interruptible as a router's routes are.
  const counted = Effect.interruptible(
    Effect.suspend(() => {
      handled++
      return app ?? HttpServerResponse.text("served")
    })
  )
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const services = yield* HttpServer.serve(counted, middleware).pipe(
    Layer.provideMerge(NodeSecureServer.layer({ port: 0, host, ...options, authorize: matcherOf(authorize) })),
    Layer.provide(identityLayer(identity)),
    Layer.provide(log.layer),
    Layer.buildWithScope(scope)
  )
  const { address } = yield* Effect.provide(HttpServer.HttpServer, services)
  if (address._tag !== "TcpAddress") return yield* Effect.dieMessage("expected a TCP address")
  const running: RunningServer = {
    port: address.port,
    log,
    handled: () => handled,
    close: Scope.close(scope, Exit.void)
  }
  return running
})

export interface ConnectTo {
  readonly port: number
  readonly peer: PeerMatcher.PeerMatcher | SpiffeId.SpiffeId
  readonly config?: TransportConfig.Options | undefined
}

export interface Opened extends Connector.Connection {
  /** Why the connection ended, as its owner was told. */
  readonly ended: Effect.Effect<AuditEvent.CloseReason>
}

export interface Client {
  readonly log: Log
  readonly connector: typeof Connector.Connector.Service
  readonly connect: (
    to: ConnectTo
  ) => Effect.Effect<Opened, Effect.Effect.Error<ReturnType<typeof Connector.Connector.Service.connect>>, Scope.Scope>
  /** A channel to the base URL `https://127.0.0.1:<port>`. */
  readonly channel: (to: {
    readonly port: number
    readonly peer: SpiffeId.SpiffeId
    readonly config?: TransportConfig.Options | undefined
  }) => Effect.Effect<
    SecureChannel.SecureChannel,
    Effect.Effect.Error<ReturnType<typeof SecureChannel.make>>,
    Scope.Scope
  >
}

export const startClient = Effect.fnUntraced(function* (
  identity: Identity,
  refuses?: (event: AuditEvent.AuditEvent) => boolean
) {
  const log = makeLog(refuses)
  const services = yield* NodeConnector.layer.pipe(
    Layer.provide(identityLayer(identity)),
    Layer.provide(log.layer),
    Layer.build
  )
  const connector = yield* Effect.provide(Connector.Connector, services)
  const client: Client = {
    log,
    connector,
    channel: ({ config, peer, port }) =>
      SecureChannel.make({ peer, baseUrl: `https://${host}:${port}`, config }).pipe(
        Effect.provide(identityLayer(identity)),
        Effect.provideService(Connector.Connector, connector)
      ),
    connect: Effect.fnUntraced(function* ({ config, peer, port }) {
      const ended = yield* Deferred.make<AuditEvent.CloseReason>()
      const connection = yield* connector.connect({
        matcher: matcherOf(peer),
        host,
        port,
        config: Either.getOrThrow(TransportConfig.make(config ?? {})),
        onClose: (reason) => Deferred.unsafeDone(ended, Effect.succeed(reason))
      })
      return Object.assign(connection, { ended: Deferred.await(ended) })
    })
  }
  return client
})

/** The failure of what must fail. A success is told of without the value, which may be a socket and all that hangs on it. */
export const failure = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<E, never, R> =>
  Effect.matchEffect(effect, {
    onFailure: Effect.succeed,
    onSuccess: () => Effect.dieMessage("expected a failure, got a success")
  })

/** What a socket of `node:tls` needs to be some peer; its TLS is as lax as OpenSSL lets it be. */
export const presented = (credentials: Credentials.Credentials): tls.SecureContextOptions => ({
  cert: credentials.certificatesPem,
  key: Redacted.value(credentials.privateKeyPem),
  ciphers: "DEFAULT@SECLEVEL=0",
  minVersion: "TLSv1.2"
})

export interface HostileServer {
  readonly host: string
  readonly port: number
  /** How many TCP connections it accepted. */
  readonly accepted: () => number
  /** Bytes of requests that arrived. */
  readonly bytes: () => number
  /** The codes of failed handshakes. */
  readonly failures: ReadonlyArray<string>
  /** For each handshake that succeeded: whether the client resumed a session. */
  readonly reused: ReadonlyArray<boolean>
  /** Done when every connection there was is closed again. */
  readonly idle: Effect.Effect<void>
}

const listening = (server: tls.Server): Effect.Effect<number> =>
  Effect.async((resume) => {
    server.listen(0, host, () => resume(Effect.succeed((server.address() as AddressInfo).port)))
  })

/** A server that presents whatever it is given, asks for a certificate and accepts any, and answers every request. */
export const hostileServer = Effect.fnUntraced(function* (
  credentials: Credentials.Credentials,
  options: tls.TlsOptions & {
    readonly onRequest?: (socket: tls.TLSSocket, bytes: Buffer) => void
    /** Called when a handshake has ended, before anything of a request is read. */
    readonly onSecure?: (socket: tls.TLSSocket) => void
  } = {}
) {
  const { onRequest, onSecure, ...tlsOptions } = options
  let accepted = 0
  let bytes = 0
  const failures: Array<string> = []
  const reused: Array<boolean> = []
  const sockets = new Set<Socket>()
  const waiters = new Set<() => void>()
  const server = yield* Effect.acquireRelease(
    Effect.sync(() =>
      tls.createServer({ ...presented(credentials), requestCert: true, rejectUnauthorized: false, ...tlsOptions })
    ),
    (server) =>
      Effect.async<void>((resume) => {
        server.close(() => resume(Effect.void))
        for (const socket of sockets) socket.destroy()
      })
  )
  server.on("connection", (socket: Socket) => {
    accepted++
    sockets.add(socket)
    socket.once("close", () => {
      sockets.delete(socket)
      if (sockets.size === 0) for (const waiter of Array.from(waiters)) waiter()
    })
  })
  server.on("tlsClientError", (error: NodeJS.ErrnoException) => failures.push(error.code ?? error.message))
  server.on("secureConnection", (socket) => {
    reused.push(socket.isSessionReused())
    socket.on("error", () => {})
    onSecure?.(socket)
    socket.on("data", (chunk) => {
      bytes += chunk.length
      if (onRequest !== undefined) return onRequest(socket, chunk)
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
      if (chunk.includes("connection: close")) socket.end()
    })
  })
  const hostile: HostileServer = {
    host,
    port: yield* listening(server),
    accepted: () => accepted,
    bytes: () => bytes,
    failures,
    reused,
    idle: Effect.async((resume) => {
      const look = () => resume(Effect.void)
      if (sockets.size === 0) return look()
      waiters.add(look)
      return Effect.sync(() => waiters.delete(look))
    })
  }
  return hostile
})

export interface Attempt {
  /** Whether the handshake ended well on the client's side (under TLS 1.3 that is before it was judged). */
  readonly secured: boolean
  readonly authorized: boolean
  readonly reused: boolean
  readonly version: string | null
  /** Everything that came back. */
  readonly received: string
  /** The socket's error, if it had one. */
  readonly code: string | undefined
}

/**
 * A client that presents whatever it is given, writes a request at the first moment and another after the handshake, and
 * tells what became of it once the connection is closed.
 */
export const hostileClient = (
  port: number,
  credentials: Credentials.Credentials | undefined,
  options: tls.ConnectionOptions & {
    /** Default: a GET. */
    readonly request?: string | Uint8Array
    readonly onSession?: (session: Buffer) => void
    /** Called with all that has come so far, when more of it came. */
    readonly onData?: (received: string, socket: tls.TLSSocket) => void
    readonly onSecure?: (socket: tls.TLSSocket) => void
  } = {}
): Effect.Effect<Attempt> =>
  Effect.async((resume) => {
    const {
      onData,
      onSecure,
      onSession,
      request = "GET /hostile HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
      ...tlsOptions
    } = options
    let received = ""
    let code: string | undefined
    let secured = false
    let session = { authorized: false, reused: false, version: null as string | null }
    const socket = tls.connect({
      host,
      port,
      ...(credentials === undefined ? { ciphers: "DEFAULT@SECLEVEL=0" } : presented(credentials)),
      rejectUnauthorized: false,
      ...tlsOptions
    })
    socket.write(request)
    if (onSession !== undefined) socket.on("session", onSession)
    socket.on("secureConnect", () => {
      secured = true
      session = {
        authorized: socket.authorized,
        reused: socket.isSessionReused(),
        version: socket.getProtocol()
      }
      onSecure?.(socket)
    })
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1")
      onData?.(received, socket)
    })
    socket.on("error", (error: NodeJS.ErrnoException) => {
      code ??= error.code ?? error.message
    })
    socket.on("close", () => resume(Effect.succeed({ secured, received, code, ...session })))
    return Effect.sync(() => {
      socket.destroy()
    })
  })
