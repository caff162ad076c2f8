/** Every attempt that is on record has an end on record, also where the log refuses what comes between. */
import { PeerMatcher } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { type AuditEvent, AuditLog, TransportMetrics } from "@agentweave/transport"
import { NodeSecureServer } from "@agentweave/transport-node"
import { HttpServer, HttpServerResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Metric, Scope } from "effect"
import { host, hostileClient, identityLayer, realTime } from "./fixture.js"

/** A log that takes everything but established connections. */
const reluctant = (events: Array<AuditEvent.AuditEvent>) =>
  Layer.succeed(AuditLog.AuditLog, {
    unsafeRecord: (event) => {
      if (event._tag === "ConnectionEstablished")
        return new AuditLog.AuditError({ reason: "Full", description: "as the test has it" })
      events.push(event)
      return undefined
    }
  })

const openConnections = Effect.map(
  Metric.value(Metric.tagged(TransportMetrics.openConnections, "side", "Server")),
  ({ value }) => value
)

it.scoped("a server's connection that cannot be recorded is refused, on record, and is not counted as open", () =>
  Effect.gen(function* () {
    yield* realTime
    const before = yield* openConnections
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const events: Array<AuditEvent.AuditEvent> = []
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const services = yield* HttpServer.serve(HttpServerResponse.text("served")).pipe(
      Layer.provideMerge(
        NodeSecureServer.layer({ port: 0, host, authorize: PeerMatcher.exactly(authority.id("/web")) })
      ),
      Layer.provide(identityLayer(yield* authority.context({ path: "/api" }))),
      Layer.provide(reluctant(events)),
      Layer.buildWithScope(scope)
    )
    const { address } = Context.get(services, HttpServer.HttpServer)
    const port = address._tag === "TcpAddress" ? address.port : 0
    const attempt = yield* hostileClient(port, yield* authority.issueRaw({ path: "/web" }))
    expect(attempt.received).toBe("")
    yield* Scope.close(scope, Exit.void)
    expect(events).toMatchObject([
      { _tag: "ConnectionAttempted" },
      { _tag: "ConnectionRefused", error: "AuditError", reason: "Full", connectionId: expect.stringMatching(/^s\d+$/) }
    ])
    expect(yield* openConnections).toBe(before)
  })
)
