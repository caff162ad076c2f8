import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as TestConnector from "@agentweave/testkit/TestConnector"
import * as TestIdentity from "@agentweave/testkit/TestIdentity"
import type * as TestMessage from "@agentweave/testkit/TestMessage"
import { type AuditEvent, AuditLog, SecureChannel } from "@agentweave/transport"
import { HttpServerResponse } from "@effect/platform"
import { Effect, Layer, Scope } from "effect"

export const peer = "spiffe://example.org/billing"

export const setup = Effect.fnUntraced(function* <R>(
  handler: TestMessage.Handler<R>,
  config: NonNullable<SecureChannel.Options["config"]> = {}
) {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* TestIdentity.make(yield* authority.context({ path: "/api", ttl: "10 hours" }))
  const events: Array<AuditEvent.AuditEvent> = []
  const network = yield* TestConnector.make({ handler })
  const scope = yield* Scope.make()
  const services = yield* Layer.build(
    Layer.provideMerge(network.layer, Layer.merge(identity.layer, AuditLog.layerMemory(events)))
  )
  const channel = yield* SecureChannel.make({ peer, baseUrl: "https://billing.internal:8443/v1", config }).pipe(
    Scope.extend(scope),
    Effect.provide(services)
  )
  return { authority, channel, events, identity, network, scope }
})

export const text = (value: string) => HttpServerResponse.text(value)
