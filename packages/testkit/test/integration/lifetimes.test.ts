import * as net from "node:net"
import { DevAuthority, FakeWorkloadApi, Fault, FaultProxy, TestConnector } from "@agentweave/testkit"
import { AuditLog, SecureChannel } from "@agentweave/transport"
import { describe } from "@effect/vitest"
import { Context, Effect, Layer, Scope } from "effect"
import { eachEnds, row } from "../../../spiffe/test/support/uninterruptible.js"

class Proxy extends Context.Tag("test/Proxy")<Proxy, FaultProxy.FaultProxy>() {}

const identity = Effect.map(DevAuthority.make({ trustDomain: "example.org" }), (authority) =>
  DevAuthority.layerIdentity(authority, { path: "/api" })
)

/** A request on its way, over a connection that nobody closes. */
const request = Effect.flatMap(Scope.make(), (scope) =>
  SecureChannel.make({ peer: "spiffe://example.org/billing", baseUrl: "https://billing.internal" }).pipe(
    Scope.extend(scope),
    Effect.flatMap((channel) => Effect.forkDaemon(channel.get("/"))),
    Effect.zipRight(Effect.yieldNow())
  )
)

/** A connection that nobody closes, once the proxy has it. */
const connection = Effect.flatMap(Proxy, (proxy) =>
  Effect.async<void>((resume) => {
    const socket = net.connect(proxy.port, proxy.host, () => resume(Effect.void))
    socket.on("error", () => {})
  }).pipe(Effect.zipRight(proxy.awaitOpen(1)))
)

describe("every layer of the test kit", () => {
  eachEnds(new URL("../../src/", import.meta.url), [
    row("DevAuthority.layerIdentity", identity),
    row(
      "the layer of TestConnector.make",
      Effect.map(identity, (identity) =>
        Layer.unwrapScoped(
          Effect.map(TestConnector.make({ handler: () => Effect.never }), (network) => network.layer)
        ).pipe(Layer.provideMerge(Layer.merge(identity, AuditLog.layerMemory([]))))
      ),
      request
    ),
    row(
      "a layer of FaultProxy.make",
      Effect.succeed(
        Layer.scoped(
          Proxy,
          Effect.tap(FaultProxy.make({ port: 1 }), (proxy) => proxy.setFault(Fault.silence))
        )
      ),
      connection
    ),
    row("a layer of FakeWorkloadApi.make", Effect.succeed(Layer.scopedDiscard(FakeWorkloadApi.make())))
  ])
})
