import { type Socket, connect as tcpConnect } from "node:net"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as Fault from "@agentweave/testkit/Fault"
import * as FaultProxy from "@agentweave/testkit/FaultProxy"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import { execute } from "./execute.js"
import { refusalOver } from "./fakeSocket.js"
import { failure, host, hostileClient, hostileServer, startClient, startServer } from "./fixture.js"
import { get, setup } from "./protocolPeers.js"

/** A TCP client that says what it is told to and tells when it is closed. */
const tcpClient = (port: number, speak: (socket: Socket) => void) =>
  Effect.async<void>((resume) => {
    const socket = tcpConnect({ host, port }, () => speak(socket))
    socket.on("error", () => {})
    socket.on("close", () => resume(Effect.void))
    socket.resume()
    return Effect.sync(() => socket.destroy())
  })

/** Bundles that fail when they are looked at, while armed. */
const armable = (context: X509Context.X509Context) => {
  let armed = false
  class Bundles extends Map<string, unknown> {
    override get(key: string): unknown {
      if (armed) throw new Error("the verifier met something unheard of")
      return super.get(key)
    }
  }
  const bundles = { ...context.bundles, bundles: new Bundles(context.bundles.bundles) }
  return {
    context: X509Context.make({ svid: context.svid, bundles: bundles as unknown as typeof context.bundles }),
    arm: (next: boolean) => {
      armed = next
    }
  }
}

describe("the TLS version", () => {
  it.scoped("of a server that speaks 1.2 only does not do for a 1.3 channel", () =>
    Effect.gen(function* () {
      const { client, raw, serverId } = yield* setup
      const server = yield* hostileServer(yield* raw("/server"), { maxVersion: "TLSv1.2" })
      expect(yield* failure(client.connect({ port: server.port, peer: serverId }))).toMatchObject({
        _tag: "ConnectionError",
        reason: "ProtocolMismatch",
        outcome: "NotSent"
      })
      expect(client.log.all("ConnectionRefused")).toMatchObject([
        { error: "ConnectionError", reason: "ProtocolMismatch" }
      ])
      expect(server.failures).toEqual(["ERR_SSL_UNSUPPORTED_PROTOCOL"])
    })
  )

  it.scoped("of a client that speaks 1.2 only does not do for a 1.3 server", () =>
    Effect.gen(function* () {
      const { clientId, raw, serverIdentity } = yield* setup
      const server = yield* startServer({ identity: serverIdentity, authorize: clientId })
      const attempt = yield* hostileClient(server.port, yield* raw("/client"), { maxVersion: "TLSv1.2" })
      expect(attempt).toMatchObject({ secured: false, received: "" })
      expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({
        error: "ConnectionError",
        reason: "ProtocolMismatch"
      })
      expect(server.handled()).toBe(0)
    })
  )

  it.scoped("is 1.2 where both are told so, with forward secrecy and without a CBC cipher", () =>
    Effect.gen(function* () {
      const { client, clientId, serverId, serverIdentity } = yield* setup
      const range = { tlsMinVersion: "TLSv1.2", tlsMaxVersion: "TLSv1.2" } as const
      const server = yield* startServer({ identity: serverIdentity, authorize: clientId, ...range })
      const connection = yield* client.connect({ port: server.port, peer: serverId, config: range })
      expect((yield* execute(connection, get)).status).toBe(200)
      const seen = { tlsVersion: "TLSv1.2", cipher: expect.stringMatching(/^ECDHE-.*(GCM|CHACHA20)/) }
      expect(client.log.all("ConnectionEstablished")).toMatchObject([seen])
      expect(server.log.all("ConnectionEstablished")).toMatchObject([seen])
    })
  )

  it.scoped("1.2 with a weak cipher is refused by either side", () =>
    Effect.gen(function* () {
      const { client, clientId, raw, serverId, serverIdentity } = yield* setup
      const weak = { maxVersion: "TLSv1.2", ciphers: "ECDHE-ECDSA-AES128-SHA256@SECLEVEL=0" } as const
      const config = { tlsMinVersion: "TLSv1.2" } as const
      const hostile = yield* hostileServer(yield* raw("/server"), weak)
      expect(yield* failure(client.connect({ port: hostile.port, peer: serverId, config }))).toMatchObject({
        _tag: "ConnectionError",
        reason: "Negotiation",
        isRetryable: false
      })
      const server = yield* startServer({ identity: serverIdentity, authorize: clientId, ...config })
      const attempt = yield* hostileClient(server.port, yield* raw("/client"), weak)
      expect(attempt).toMatchObject({ secured: false, received: "" })
      expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({
        error: "ConnectionError",
        reason: "Negotiation"
      })
    })
  )
})

describe("a second handshake on a connection", () => {
  it.scoped("is not held", () =>
    Effect.gen(function* () {
      const { clientId, raw, serverIdentity } = yield* setup
      const server = yield* startServer({ identity: serverIdentity, authorize: clientId, tlsMinVersion: "TLSv1.2" })
      const attempt = yield* hostileClient(server.port, yield* raw("/client"), {
        maxVersion: "TLSv1.2",
        request: "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        onSecure: (socket) => {
          socket.renegotiate({}, () => socket.destroy())
        }
      })
      expect(attempt).toMatchObject({ secured: true, code: "ERR_SSL_NO_RENEGOTIATION" })
    })
  )
})

describe("a peer that does not shake hands", () => {
  const cases: ReadonlyArray<readonly [name: string, fault: Fault.Fault, reason: string, retryable: boolean]> = [
    ["refuses the connection", Fault.refuse, "Refused", true],
    ["resets it at once", Fault.reset(), "HandshakeReset", true],
    ["resets it in the handshake", Fault.reset({ afterBytes: 200 }), "HandshakeReset", true],
    ["ends it at once", Fault.finish(), "HandshakeReset", true],
    ["ends it in the handshake", Fault.finish({ afterBytes: 200 }), "HandshakeReset", true],
    ["answers in plain HTTP", Fault.plaintextHttp, "NotTls", false],
    ["answers garbage", Fault.garbage, "NotTls", false]
  ]
  for (const [name, fault, reason, isRetryable] of cases) {
    it.scoped(`${name}: ${reason}`, () =>
      Effect.gen(function* () {
        const { client, raw, serverId } = yield* setup
        const server = yield* hostileServer(yield* raw("/server"))
        const proxy = yield* FaultProxy.make({ port: server.port })
        yield* proxy.setFault(fault)
        const error = yield* failure(client.connect({ port: proxy.port, peer: serverId }))
        expect(error).toMatchObject({ _tag: "ConnectionError", reason, outcome: "NotSent", isRetryable })
        expect(client.log.events).toMatchObject([
          { _tag: "ConnectionAttempted" },
          { _tag: "ConnectionRefused", error: "ConnectionError", reason }
        ])
        yield* proxy.awaitOpen(0)
        expect(server.bytes()).toBe(0)
      })
    )
  }

  for (const [region, wrap] of [
    ["", (effect: Effect.Effect<unknown, unknown>) => effect],
    [", in an uninterruptible region too", Effect.uninterruptible]
  ] as const) {
    it.scoped(`stays silent: TimeoutError Connect after connectTimeout${region}`, () =>
      Effect.gen(function* () {
        const { client, serverId } = yield* setup
        const proxy = yield* FaultProxy.make({ port: 1 })
        yield* proxy.setFault(Fault.silence)
        const config = { connectTimeout: "3 seconds" } as const
        const attempt = Effect.scoped(client.connect({ port: proxy.port, peer: serverId, config }))
        const fiber = yield* Effect.fork(wrap(attempt))
        yield* proxy.awaitConnections(([first]) => (first?.fromClient ?? 0) > 0)
        yield* TestClock.adjust("2999 millis")
        expect(fiber.unsafePoll()).toBeNull()
        yield* TestClock.adjust("1 millis")
        expect(yield* failure(Fiber.join(fiber))).toMatchObject({
          _tag: "TimeoutError",
          phase: "Connect",
          outcome: "NotSent",
          isRetryable: true
        })
        expect(client.log.all("ConnectionRefused")).toMatchObject([
          { error: "TimeoutError", reason: "Connect", durationMillis: 3000 }
        ])
        yield* proxy.awaitOpen(0)
      })
    )
  }

  it.scoped("is left alone when the attempt is interrupted", () =>
    Effect.gen(function* () {
      const { client, serverId } = yield* setup
      const proxy = yield* FaultProxy.make({ port: 1 })
      yield* proxy.setFault(Fault.silence)
      const fiber = yield* Effect.fork(Effect.scoped(client.connect({ port: proxy.port, peer: serverId })))
      yield* proxy.awaitOpen(1)
      yield* Fiber.interrupt(fiber)
      yield* proxy.awaitOpen(0)
      expect(client.log.all("ConnectionRefused")).toMatchObject([{ error: "Interrupted" }])
      expect(client.log.all("ConnectionEstablished")).toEqual([])
    })
  )
})

describe("a client that does not shake hands", () => {
  const cases: ReadonlyArray<readonly [name: string, speak: (socket: Socket) => void, error: string, reason: string]> =
    [
      ["speaks plain HTTP", (socket) => socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n"), "ConnectionError", "NotTls"],
      ["speaks garbage", (socket) => socket.write(Buffer.alloc(512, 0xa7)), "ConnectionError", "NotTls"],
      ["resets", (socket) => socket.resetAndDestroy(), "ConnectionError", "HandshakeReset"],
      ["ends", (socket) => socket.end(), "ConnectionError", "HandshakeReset"],
      ["stays silent", () => {}, "TimeoutError", "Connect"]
    ]
  for (const [name, speak, error, reason] of cases) {
    it.scoped(`${name}: ${reason}`, () =>
      Effect.gen(function* () {
        const { clientId, serverIdentity } = yield* setup
        const server = yield* startServer({
          identity: serverIdentity,
          authorize: clientId,
          handshakeTimeout: "40 millis"
        })
        const closed = yield* Effect.fork(tcpClient(server.port, speak))
        yield* server.log.nth("ConnectionAttempted")
        if (reason === "Connect") yield* TestClock.adjust("40 millis")
        expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({ error, reason, side: "Server" })
        yield* Fiber.join(closed)
        expect(server.log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
        expect(server.handled()).toBe(0)
      })
    )
  }
})

describe("a verifier that throws", () => {
  it.scoped("refuses the server, and the next one is judged as ever", () =>
    Effect.gen(function* () {
      const { clientIdentity, raw, serverId } = yield* setup
      const { arm, context } = armable(clientIdentity)
      const client = yield* startClient(context)
      // The server's last word before it is judged.
      const server = yield* hostileServer(yield* raw("/server"), {
        ALPNCallback: () => {
          arm(client.log.all("ConnectionAttempted").length === 1)
          return "http/1.1"
        }
      })
      const error = yield* failure(client.connect({ port: server.port, peer: serverId }))
      expect(error).toMatchObject({ _tag: "PeerVerificationError", reason: "VerifierFault" })
      expect(client.log.all("ConnectionRefused")).toMatchObject([{ reason: "VerifierFault" }])
      yield* server.idle
      expect(server.bytes()).toBe(0)
      arm(false)
      yield* client.connect({ port: server.port, peer: serverId })
    })
  )

  it.scoped("refuses the client, and the next one is judged as ever", () =>
    Effect.gen(function* () {
      const { clientId, raw, serverIdentity } = yield* setup
      const { arm, context } = armable(serverIdentity)
      const server = yield* startServer({ identity: context, authorize: clientId })
      arm(true)
      expect(yield* hostileClient(server.port, yield* raw("/client"))).toMatchObject({ received: "" })
      expect(yield* server.log.nth("ConnectionRefused")).toMatchObject({ reason: "VerifierFault" })
      expect(server.handled()).toBe(0)
      arm(false)
      expect((yield* hostileClient(server.port, yield* raw("/client"))).received).toMatch(/^HTTP\/1.1 200/)
    })
  )

  it.scoped("or a socket that does, is an answer and not an exception", () =>
    Effect.gen(function* () {
      const { clientIdentity, serverId } = yield* setup
      const socket = {
        isSessionReused: () => {
          throw new Error("no handle")
        }
      }
      expect(yield* refusalOver(socket, clientIdentity, serverId)).toMatchObject({ reason: "VerifierFault" })
    })
  )
})
