import { connect, createSecureContext, createServer, type SecureContext, TLSSocket } from "node:tls"
import { IdentityProvider, PeerMatcher, type X509Context } from "@agentweave/spiffe"
import { Connector, TransportConfig } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { HttpServer, HttpServerResponse } from "@effect/platform"
import { Effect, Layer, ManagedRuntime, Stream } from "effect"
import { layerCounting, recorded } from "../harness/audit.js"
import { type Benchmark, type Environment, perSecond, type Running, type Subject } from "../harness/Benchmark.js"
import { contextOf, type Identity, leafId, serverId } from "../harness/credentials.js"
import { effectLoop, inTurn, promiseLoop } from "../harness/loops.js"
import { peerOf, tlsOptions } from "../harness/tls.js"
import { listen } from "../servers/listen.js"
import { serveSecurely } from "../servers/secure.js"

/** Both ends are kept busy, as they are when many connections are made. */
const inFlight = 4

/**
 * More than the gate remembers: presented in turn, each has been forgotten when it comes again, and every handshake is
 * a first sight at both ends.
 */
const manyLeaves = 1100

/** The part of Node's TLS sockets (20 to 26) that takes the secure context into use. */
interface Wrapping {
  readonly _tlsOptions: { readonly isServer?: boolean; secureContext?: SecureContext }
  _wrapHandle: (this: Wrapping, ...args: Array<unknown>) => unknown
}

/**
 * Makes every server of this process present another certificate on each connection. Contexts are made beforehand; what
 * a rotation costs would otherwise be all there is to measure.
 */
const rotateServers = ({ credentials }: Omit<Environment, "ports">): void => {
  const next = inTurn(credentials.leaves.map((leaf) => createSecureContext(tlsOptions(credentials, leaf))))
  const sockets = TLSSocket.prototype as unknown as Wrapping
  const wrapHandle = sockets._wrapHandle
  sockets._wrapHandle = function (...args) {
    if (this._tlsOptions.isServer === true) this._tlsOptions.secureContext = next()
    return wrapHandle.apply(this, args)
  }
}

type Sight = "first" | "again"

const bareServer = (sight: Sight) => ({
  start: (environment: Omit<Environment, "ports">) => {
    const { credentials } = environment
    if (sight === "first") rotateServers(environment)
    const own = sight === "first" ? credentials.leaves[0] : credentials.server
    const server = createServer({
      ...tlsOptions(credentials, own ?? credentials.server),
      requestCert: true,
      rejectUnauthorized: true,
      ALPNProtocols: ["http/1.1"]
    })
    server.on("secureConnection", (socket) => {
      socket.setNoDelay(true)
      socket.on("error", () => {})
      socket.on("end", () => socket.end())
      socket.resume()
    })
    return listen(server)
  }
})

const secureServer = (sight: Sight) => ({
  start: (environment: Omit<Environment, "ports">) => {
    const { credentials } = environment
    if (sight === "first") rotateServers(environment)
    const own = sight === "first" ? credentials.leaves[0] : credentials.server
    return serveSecurely(
      IdentityProvider.layerStatic(contextOf(credentials, own ?? credentials.server)),
      HttpServer.serve(Effect.succeed(HttpServerResponse.empty()))
    )
  }
})

const ownIdentities = (sight: Sight, { credentials }: Environment): ReadonlyArray<Identity> =>
  sight === "first" ? credentials.leaves : [credentials.client]

const bareClient = (sight: Sight, server: string): Subject => ({
  server,
  start: async (environment): Promise<Running> => {
    const { credentials, ports } = environment
    const next = inTurn(
      ownIdentities(sight, environment).map((own) => createSecureContext(tlsOptions(credentials, own)))
    )
    const open = () =>
      new Promise<TLSSocket>((resolve, reject) => {
        const socket = connect({
          host: "127.0.0.1",
          port: ports[server] ?? 0,
          secureContext: next(),
          servername: "",
          rejectUnauthorized: true,
          checkServerIdentity: () => undefined,
          ALPNProtocols: ["http/1.1"]
        })
        socket.setNoDelay(true)
        socket.on("error", reject)
        socket.once("secureConnect", () => resolve(socket))
      })
    return {
      sample: promiseLoop(inFlight, async () => {
        const socket = await open()
        await flightSent()
        socket.destroy()
      }),
      check: async () => {
        const socket = await open()
        const seen = {
          authorized: socket.authorized,
          peer: peerOf(socket),
          protocol: socket.getProtocol(),
          cipher: socket.getCipher().name
        }
        await flightSent()
        socket.destroy()
        return seen
      },
      stop: async () => {}
    }
  }
})

const connectOptions = (sight: Sight, port: number): Connector.ConnectOptions => ({
  matcher: PeerMatcher.exactly(sight === "first" ? leafId : serverId),
  host: "127.0.0.1",
  port,
  config: TransportConfig.defaults,
  onClose: () => {}
})

/**
 * A client is told that its handshake is done before its last flight is on the wire. Whoever closes at once takes that
 * flight back, and the server, that has judged nothing, has nothing to do.
 */
const flightSent = () => new Promise<void>((resolve) => setImmediate(resolve))

/** An identity that is another one at each look, each with its TLS context made beforehand. */
const rotating = (contexts: ReadonlyArray<X509Context.X509Context>): Layer.Layer<IdentityProvider.IdentityProvider> =>
  Layer.succeed(IdentityProvider.IdentityProvider, {
    x509Context: Effect.sync(inTurn(contexts)),
    changes: Stream.never
  })

const secureClient = (sight: Sight, server: string): Subject => ({
  server,
  start: async (environment): Promise<Running> => {
    const { credentials, ports } = environment
    const contexts = ownIdentities(sight, environment).map((own) => contextOf(credentials, own))
    const audit = recorded()
    const runtime = ManagedRuntime.make(
      NodeConnector.layer.pipe(Layer.provide(rotating(contexts)), Layer.provide(layerCounting(audit)))
    )
    const options = connectOptions(sight, ports[server] ?? 0)
    const sent = Effect.async<void>((resume) => {
      setImmediate(() => resume(Effect.void))
    })
    const connectTo = (to: Connector.ConnectOptions) =>
      Effect.flatMap(Connector.Connector, (connector) => connector.connect(to))
    const open = Effect.tap(connectTo(options), sent)
    // A connection nobody accepts makes the TLS context of the identity whose turn it is, and no handshake.
    audit.lenient = true
    const nowhere = Effect.ignore(Effect.scoped(connectTo({ ...options, port: 1 })))
    await runtime.runPromise(Effect.repeatN(nowhere, contexts.length - 1))
    audit.lenient = false
    return {
      sample: effectLoop(await runtime.runtime(), inFlight, () => Effect.scoped(open)),
      check: async () => {
        const peer = await runtime.runPromise(Effect.scoped(Effect.map(open, (connection) => connection.peer.spiffeId)))
        return {
          authorized: true,
          peer,
          protocol: audit.established?.tlsVersion,
          cipher: audit.established?.cipher
        }
      },
      stop: () => runtime.dispose()
    }
  }
})

const sights: ReadonlyArray<{ readonly sight: Sight; readonly name: string; readonly target: number }> = [
  { sight: "first", name: "first sight", target: 0.85 },
  { sight: "again", name: "leaf seen before", target: 0.97 }
]

export const handshake: Benchmark = {
  name: "handshake",
  title: "mutual TLS handshakes, the gate at both ends",
  unit: perSecond("handshakes"),
  cpuOf: "both",
  millis: 600,
  warmUp: 3_000,
  leaves: manyLeaves,
  servers: Object.fromEntries(
    sights.flatMap(({ name, sight }) => [
      [`bare, ${name}`, bareServer(sight)],
      [`secure, ${name}`, secureServer(sight)]
    ])
  ),
  subjects: Object.fromEntries(
    sights.flatMap(({ name, sight }) => [
      [`NodeConnector to NodeSecureServer, ${name}`, secureClient(sight, `secure, ${name}`)],
      [`tls.connect to tls.createServer, ${name}`, bareClient(sight, `bare, ${name}`)]
    ])
  ),
  rows: sights.flatMap(({ name, target }) => {
    const bare = `tls.connect to tls.createServer, ${name}`
    return [
      { contender: bare, baseline: bare },
      { contender: `NodeConnector to NodeSecureServer, ${name}`, baseline: bare, target }
    ]
  })
}
