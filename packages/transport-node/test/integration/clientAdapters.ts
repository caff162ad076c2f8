/**
 * Everything that a program can call a verified peer by, as rows of one table. A row makes one exchange: it sends a request and
 * answers with what came. What holds for all of them is asked of each in `adapters.test.ts`.
 */
import { get } from "node:https"
import type { Duplex } from "node:stream"
import type { IdentityProvider } from "@agentweave/spiffe"
import type { SpiffeId } from "@agentweave/spiffe/SpiffeId"
import { type Connector, SecureChannel, SecureSocket } from "@agentweave/transport"
import { NodeDispatcher, NodeSecureAgent, NodeSecureSocket, NodeSecureWebSocket } from "@agentweave/transport-node"
import { FetchHttpClient, HttpClient, Socket } from "@effect/platform"
import { Effect, Layer, Predicate, type Scope } from "effect"
import { request } from "undici"
import { host } from "./fixture.js"
import { text } from "./socketFixture.js"

export interface Target {
  readonly peer: SpiffeId
  readonly port: number
}

/** One exchange; done with what came, which has a `200` in it where it went well. */
export type Call = Effect.Effect<string, unknown>

export interface ClientAdapter {
  readonly name: string
  /** Whether each request is on record, beside its connection. */
  readonly recordsRequests: boolean
  /** Made once; the call can be made again. */
  readonly make: (
    to: Target
  ) => Effect.Effect<Call, unknown, Connector.Connector | IdentityProvider.IdentityProvider | Scope.Scope>
  /** The same with a URL of the library's own, for those that take one. */
  readonly ofUrl?: (
    to: Target
  ) => Effect.Effect<
    (url: string) => Call,
    unknown,
    Connector.Connector | IdentityProvider.IdentityProvider | Scope.Scope
  >
}

const head = "GET /adapter HTTP/1.1\r\nhost: adapter.test\r\n\r\n"
const origin = ({ port }: Target): string => `https://${host}:${port}`
const socketOf = ({ peer, port }: Target): SecureSocket.Options => ({ peer, host, port })

/** The first bytes that come after the head of a request was written. */
const exchange = (socket: Socket.Socket): Call =>
  Effect.scoped(
    Effect.gen(function* () {
      const write = yield* socket.writer
      const heard = Effect.async<string, unknown>((resume) => {
        received = (bytes) => resume(Effect.succeed(text(bytes)))
      })
      let received: (bytes: Uint8Array) => void = () => {}
      const reading = Effect.zipRight(
        socket.run((bytes) => received(bytes)),
        Effect.fail(new Error("the stream ended"))
      )
      return yield* Effect.raceFirst(reading, Effect.zipRight(write(head), heard))
    })
  )

const duplexExchange = (duplex: Duplex): Call =>
  Effect.async((resume) => {
    duplex.once("error", (cause) => resume(Effect.fail(cause)))
    duplex.once("data", (bytes: Buffer) => resume(Effect.succeed(bytes.toString())))
    duplex.once("close", () => resume(Effect.fail(new Error("the stream ended"))))
    duplex.write(head)
    return Effect.sync(() => duplex.destroy())
  })

const ofPromise = (answer: () => Promise<string>): Call => Effect.tryPromise({ try: answer, catch: (cause) => cause })

const channel = (to: Target) => SecureChannel.make({ peer: to.peer, baseUrl: origin(to) })

const viaUrl = (ofUrl: NonNullable<ClientAdapter["ofUrl"]>): Pick<ClientAdapter, "make" | "ofUrl"> => ({
  ofUrl,
  make: (to) => Effect.map(ofUrl(to), (call) => call(`${origin(to)}/adapter`))
})

/** A server that answers without a WebSocket was reached: the answer is told by the error, or by that of its event. */
const handshake = (socket: Socket.Socket): Call =>
  Effect.catchAll(
    Effect.as(
      socket.run(() => {}),
      "a WebSocket"
    ),
    (error) => {
      const cause: unknown = "cause" in error ? error.cause : undefined
      const told = Predicate.hasProperty(cause, "error") ? cause.error : cause
      return `${told}`.includes("server response: 200") ? Effect.succeed("200") : Effect.fail(error)
    }
  )

export const clientAdapters: ReadonlyArray<ClientAdapter> = [
  {
    name: "SecureChannel.make",
    recordsRequests: true,
    ...viaUrl((to) =>
      Effect.map(channel(to), (channel) => (url) => Effect.map(channel.get(url), ({ status }) => `${status}`))
    )
  },
  {
    name: "SecureSocket.connect",
    recordsRequests: false,
    make: (to) =>
      Effect.map(Effect.context<Connector.Connector>(), (context) =>
        SecureSocket.connect(socketOf(to)).pipe(Effect.flatMap(exchange), Effect.scoped, Effect.provide(context))
      )
  },
  {
    name: "SecureSocket.make",
    recordsRequests: false,
    make: (to) => Effect.map(SecureSocket.make(socketOf(to)), exchange)
  },
  {
    name: "NodeSecureSocket.connect",
    recordsRequests: false,
    make: (to) =>
      Effect.map(Effect.context<Connector.Connector>(), (context) =>
        NodeSecureSocket.connect(socketOf(to)).pipe(
          Effect.flatMap(duplexExchange),
          Effect.scoped,
          Effect.provide(context)
        )
      )
  },
  {
    name: "NodeSecureSocket.makeFactory",
    recordsRequests: false,
    make: (to) =>
      Effect.map(NodeSecureSocket.makeFactory(socketOf(to)), (stream) =>
        Effect.acquireUseRelease(Effect.sync(stream), duplexExchange, (duplex) => Effect.sync(() => duplex.destroy()))
      )
  },
  {
    name: "NodeSecureWebSocket.make",
    recordsRequests: true,
    make: ({ peer, port }) =>
      Effect.map(NodeSecureWebSocket.make({ peer, url: `wss://${host}:${port}/adapter` }), handshake)
  },
  {
    name: "NodeSecureWebSocket.layerConstructor",
    recordsRequests: true,
    ...viaUrl(({ peer, port }) =>
      Effect.map(
        Layer.build(NodeSecureWebSocket.layerConstructor({ peer, url: `wss://${host}:${port}` })),
        (services) => (url) =>
          Socket.makeWebSocket(url.replace(/^http/, "ws")).pipe(Effect.flatMap(handshake), Effect.provide(services))
      )
    )
  },
  {
    name: "NodeSecureAgent, with https.get",
    recordsRequests: false,
    ...viaUrl((to) =>
      Effect.map(
        NodeSecureAgent.make({ peer: to.peer, origin: origin(to) }),
        (agent) => (url) =>
          ofPromise(
            () =>
              new Promise((resolve, reject) => {
                // What a hostile or careless caller may ask for besides.
                const lax = { rejectUnauthorized: false, checkServerIdentity: () => undefined, ca: "", servername: "" }
                get(url, { ...lax, agent }, (response) => {
                  response.resume()
                  resolve(`${response.statusCode}`)
                }).on("error", reject)
              })
          )
      )
    )
  },
  {
    name: "NodeDispatcher, with undici",
    recordsRequests: true,
    ...viaUrl((to) =>
      Effect.map(
        Effect.flatMap(channel(to), NodeDispatcher.make),
        (dispatcher) => (url) =>
          ofPromise(async () => {
            const { body, statusCode } = await request(url, { dispatcher })
            await body.dump()
            return `${statusCode}`
          })
      )
    )
  },
  {
    name: "NodeDispatcher.makeFetch",
    recordsRequests: true,
    ...viaUrl((to) =>
      Effect.map(
        Effect.flatMap(channel(to), NodeDispatcher.makeFetch),
        (fetch) => (url) =>
          ofPromise(async () => {
            const response = await fetch(url)
            await response.text()
            return `${response.status}`
          })
      )
    )
  },
  {
    name: "NodeDispatcher.layerFetch, under FetchHttpClient",
    recordsRequests: true,
    ...viaUrl((to) =>
      Effect.gen(function* () {
        const services = yield* FetchHttpClient.layer.pipe(
          Layer.provide(NodeDispatcher.layerFetch),
          Layer.provide(SecureChannel.layerHttpClient({ peer: to.peer, baseUrl: origin(to) })),
          Layer.build
        )
        const client = yield* Effect.provide(HttpClient.HttpClient, services)
        return (url) => Effect.map(client.get(url), ({ status }) => `${status}`)
      })
    )
  }
]
