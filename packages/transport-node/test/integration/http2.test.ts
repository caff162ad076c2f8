import { type ClientHttp2Session, connect } from "node:http2"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import * as Connector from "@agentweave/transport/Connector"
import * as NodeSecureSocket from "@agentweave/transport-node/NodeSecureSocket"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { failure, host, realTime, startClient } from "./fixture.js"
import { http2, startSocketServer } from "./socketFixture.js"

const setUp = Effect.fnUntraced(function* ({
  protocols = ["h2"]
}: {
  readonly protocols?: ReadonlyArray<string>
} = {}) {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* TestIdentity.make(yield* authority.context({ path: "/client" }))
  const server = yield* startSocketServer({
    identity: yield* authority.context({ path: "/server" }),
    authorize: PeerMatcher.exactly(authority.id("/client")),
    handler: http2,
    protocols
  })
  const client = yield* startClient(identity)
  const options = { peer: authority.id("/server"), host, port: server.port, protocols: ["h2"] }
  const withConnector = Effect.provideService(Connector.Connector, client.connector)
  return {
    authority,
    identity,
    server,
    log: client.log,
    connected: withConnector(NodeSecureSocket.connect(options)),
    factory: withConnector(NodeSecureSocket.makeFactory(options))
  }
})

const get = (session: ClientHttp2Session, path: string): Effect.Effect<string, unknown> =>
  Effect.async((resume) => {
    let received = ""
    session.setMaxListeners(30).once("error", (cause) => resume(Effect.fail(cause)))
    session
      .request({ ":path": path })
      .setEncoding("utf8")
      .on("data", (text: string) => {
        received += text
      })
      .on("end", () => resume(Effect.succeed(received)))
      .on("error", (cause) => resume(Effect.fail(cause)))
      .end()
  })

describe("HTTP/2 over verified connections", () => {
  it.scoped("streams of one session are multiplexed, and the server knows their caller", () =>
    Effect.gen(function* () {
      const { authority, connected, log, server } = yield* setUp()
      const socket = yield* connected
      const session = connect("https://server.test", { createConnection: () => socket })
      const answers = yield* Effect.all(Effect.replicate(get(session, "/whoami"), 20), { concurrency: "unbounded" })
      expect(new Set(answers)).toEqual(new Set([authority.id("/client")]))
      expect(server.handled()).toBe(1)
      session.close()
      yield* log.nth("ConnectionClosed")
      yield* server.log.nth("ConnectionClosed")
    })
  )

  it.scoped("a session can be made on a stream that is connected later", () =>
    Effect.gen(function* () {
      const { authority, factory } = yield* setUp()
      const createConnection = yield* factory
      const session = connect("https://server.test", { createConnection })
      expect(yield* get(session, "/whoami")).toBe(authority.id("/client"))
      session.close()
    })
  )

  it.scoped("a server that does not speak it is refused before a byte is sent", () =>
    Effect.gen(function* () {
      const { connected, log, server } = yield* setUp({ protocols: ["h3"] })
      expect(yield* failure(connected)).toMatchObject({ _tag: "ConnectionError", reason: "Negotiation" })
      expect(server.handled()).toBe(0)
      expect(log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
    })
  )

  it.scoped("a session ends, with our error, when the server's authority is withdrawn in the middle of a stream", () =>
    Effect.gen(function* () {
      const { authority, connected, identity, log, server } = yield* setUp()
      const socket = yield* connected
      const session = connect("https://server.test", { createConnection: () => socket })
      const stream = yield* Effect.fork(failure(get(session, "/never")))
      expect(yield* get(session, "/whoami")).toBe(authority.id("/client"))
      const successor = yield* Effect.flatMap(authority.rotateRoot(), ({ retireOldRoots }) => retireOldRoots)
      yield* identity.set(yield* successor.context({ path: "/client" }))
      expect(yield* Effect.fromFiber(stream)).toMatchObject({ _tag: "ConnectionError", reason: "Lost" })
      expect(yield* log.nth("ConnectionClosed")).toMatchObject({ reason: "Distrust" })
      yield* server.log.nth("ConnectionClosed")
    })
  )
})
