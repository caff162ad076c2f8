import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority, FakeWorkloadApi } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, IdentityMonitor } from "@agentweave/transport"
import { WorkloadApi } from "@agentweave/workload-api"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger, Queue, Redacted } from "effect"
import { leaks } from "../support/leaks.js"
import { messageOf, withFirst } from "../support/messages.js"

it.scopedLive("what an agent pushes, corrupts and denies is in the audit log once, with its reason and no key", () =>
  Effect.gen(function* () {
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const agent = yield* FakeWorkloadApi.make()
    const events: Array<AuditEvent.AuditEvent> = []
    const recorded = yield* Queue.unbounded<AuditEvent.AuditEvent>()
    const log = Layer.succeed(AuditLog.AuditLog, {
      unsafeRecord: (event) => {
        events.push(event)
        recorded.unsafeOffer(event)
        return undefined
      }
    })
    const services = yield* IdentityMonitor.layer().pipe(
      Layer.provideMerge(WorkloadApi.layer({ endpoint: agent.endpoint })),
      Layer.provide(log),
      Layer.provide(Logger.remove(Logger.defaultLogger)),
      Layer.build
    )
    const { x509Context } = Context.get(services, IdentityProvider.IdentityProvider)
    /** The next event, as a text. */
    const next = Effect.map(Queue.take(recorded), (event) =>
      event._tag === "IdentityProblem" ? `${event.problem} ${event.reason}: ${event.description}` : event._tag
    )
    const [good, other] = yield* Effect.all([authority.context({ path: "/api" }), authority.context({ path: "/api" })])
    yield* agent.push(good)
    expect([yield* next, yield* next]).toEqual(["SvidRotated", "BundleRotated"])

    yield* agent.corrupt
    expect(yield* next).toMatch(/^Discarded Malformed: /)
    const [foreign] = messageOf(other).svids
    const mixed = withFirst(messageOf(good), { x509SvidKey: foreign?.x509SvidKey ?? Redacted.make(Uint8Array.of()) })
    yield* agent.pushMessage(mixed)
    expect(yield* next).toMatch(/^Discarded InvalidSvid: .*the key of another certificate/)
    yield* agent.pushMessage(withFirst(messageOf(good), { bundle: Uint8Array.of(0x30, 0x03, 0x01) }))
    expect(yield* next).toMatch(/^Discarded InvalidBundle: bundle of example.org/)
    expect((yield* x509Context).svid.fingerprint).toBe(good.svid.fingerprint)

    yield* agent.deny
    expect(yield* next).toMatch(/^Withdrawn Withdrawn: .*no identity issued/)
    expect(yield* Effect.flip(x509Context)).toMatchObject({ reason: "Withdrawn" })
    const calls = yield* agent.calls
    yield* agent.awaitCalls(calls + 2)
    yield* agent.push(other)
    expect([yield* next, yield* next]).toEqual(["SvidRotated", "BundleRotated"])
    expect(events).toHaveLength(8)

    const keys = [good, other].map(({ svid }) =>
      Buffer.from(Redacted.value(svid.privateKey).export({ format: "jwk" }).d ?? "", "base64url")
    )
    expect(leaks([JSON.stringify(events)], keys)).toBe(false)
    expect(leaks([JSON.stringify(keys)], keys)).toBe(true)
  })
)
