import { X509Context } from "@agentweave/spiffe"
import { CertificateAuthority, DevAuthority, FakeWorkloadApi } from "@agentweave/testkit"
import { WorkloadApiError, WorkloadMessage } from "@agentweave/workload-api"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Redacted, Stream, TestClock } from "effect"
import * as LiveProvider from "../support/liveProvider.js"
import { messageOf } from "../support/messages.js"
import { unusableUpdates } from "../support/unusableUpdates.js"

const { reasonOf } = LiveProvider

/** An agent that has given this workload its first identity, and a provider that has it. */
const served = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const agent = yield* FakeWorkloadApi.make()
  const first = yield* authority.context({ ttl: "10 minutes" })
  yield* agent.push(first)
  const provider = yield* LiveProvider.make({ endpoint: agent.endpoint })
  yield* provider.nextEvent("Updated")
  const fingerprint = Effect.map(provider.x509Context, ({ svid }) => svid.fingerprint)
  return { authority, agent, first, provider, fingerprint }
})

describe("what the agent does, and what becomes of the identity", () => {
  it.scopedLive("it rotates: one stream brings every update", () =>
    Effect.gen(function* () {
      const { agent, authority, fingerprint, provider } = yield* served
      for (let rotation = 0; rotation < 5; rotation++) {
        const next = yield* authority.context()
        yield* agent.push(next)
        yield* provider.nextEvent("Updated")
        expect(yield* fingerprint).toBe(next.svid.fingerprint)
      }
      expect(yield* agent.calls).toBe(1)
      expect(yield* agent.connections).toBe(1)
    })
  )

  it.scopedLive("it restarts: the last good identity serves meanwhile, and the next one after", () =>
    Effect.gen(function* () {
      const { agent, authority, fingerprint, first, provider } = yield* served
      yield* agent.stop
      expect((yield* provider.nextEvent("Disconnected")).reason).toBe("Unavailable")
      expect(yield* fingerprint).toBe(first.svid.fingerprint)
      expect(yield* provider.agentHealth).toBe("Degraded")
      yield* agent.restart
      const next = yield* authority.context()
      yield* agent.push(next)
      yield* provider.nextEvent("Updated")
      expect(yield* fingerprint).toBe(next.svid.fingerprint)
      expect(yield* provider.agentHealth).toBe("Healthy")
    })
  )

  it.scopedLive("it cuts the stream: another call follows, and what it repeats is no rotation", () =>
    Effect.gen(function* () {
      const { agent, first, fingerprint, provider } = yield* served
      const before = yield* provider.x509Context
      yield* agent.drop
      yield* provider.nextEvent("Disconnected")
      yield* agent.awaitCalls(2)
      expect(yield* fingerprint).toBe(first.svid.fingerprint)
      expect(yield* provider.x509Context).toBe(before)
    })
  )

  it.scoped("it vanishes for longer than the SVID lives, and comes back", () =>
    Effect.gen(function* () {
      const { agent, authority, fingerprint, provider } = yield* served
      const lost = yield* Effect.fork(Effect.flip(Stream.runDrain(provider.changes)))
      yield* agent.stop
      yield* provider.nextEvent("Disconnected")
      yield* TestClock.adjust("9 minutes")
      expect(yield* reasonOf(provider.x509Context)).toBe("ok")
      yield* TestClock.adjust("61 seconds")
      expect(yield* reasonOf(provider.x509Context)).toBe("Expired")
      expect((yield* Fiber.join(lost)).reason).toBe("Expired")
      expect(yield* provider.agentHealth).toBe("Degraded")
      yield* agent.restart
      const next = yield* authority.context()
      yield* agent.push(next)
      // The clock is the test's and the socket is not, so the backoff is let pass until the agent was found.
      const updated = yield* Effect.fork(provider.nextEvent("Updated"))
      yield* Effect.repeat(TestClock.adjust("30 seconds"), {
        until: () => Effect.map(updated.status, ({ _tag }) => _tag === "Done")
      })
      expect(yield* fingerprint).toBe(next.svid.fingerprint)
      expect(yield* provider.agentHealth).toBe("Healthy")
    })
  )

  it.scopedLive("it answers PermissionDenied: withdrawn; and it has an identity again: served", () =>
    Effect.gen(function* () {
      const { agent, authority, fingerprint, provider } = yield* served
      const lost = yield* Effect.fork(Effect.flip(Stream.runDrain(provider.changes)))
      yield* agent.deny
      yield* provider.nextEvent("Withdrawn")
      expect((yield* Fiber.join(lost)).reason).toBe("Withdrawn")
      expect(yield* reasonOf(provider.x509Context)).toBe("Withdrawn")
      const next = yield* authority.context()
      yield* agent.push(next)
      yield* provider.nextEvent("Updated")
      expect(yield* fingerprint).toBe(next.svid.fingerprint)
    })
  )

  it.scopedLive("it refuses the call as invalid: it is not called again", () =>
    Effect.gen(function* () {
      const { agent, fingerprint, first, provider } = yield* served
      yield* agent.fail(new WorkloadApiError.WorkloadApiError({ reason: "InvalidArgument", description: "no header" }))
      expect(yield* provider.nextEvent("Stopped")).toMatchObject({
        reason: "InvalidArgument",
        description: "status INVALID_ARGUMENT: no header"
      })
      expect(yield* fingerprint).toBe(first.svid.fingerprint)
      expect(yield* agent.calls).toBe(1)
    })
  )

  it.scopedLive("it sends as many federated bundles as are allowed, in a message of more than 4 MiB", () =>
    Effect.gen(function* () {
      const { agent, authority, provider } = yield* served
      const root = yield* CertificateAuthority.makeRoot({
        trustDomain: "partner.org",
        extensions: [{ oid: "1.2.3.4.5", critical: false, value: new Uint8Array(4500) }]
      })
      const context = yield* authority.context()
      const message = {
        ...WorkloadMessage.toX509SvidResponse(context),
        federatedBundles: new Map(
          Array.from({ length: 1000 }, (_, index) => [`spiffe://partner${index}.org`, root.certificate])
        )
      }
      const bytes = WorkloadMessage.encodeX509SvidResponse(message)
      expect(Redacted.value(bytes).length).toBeGreaterThan(4 * 1024 * 1024)
      yield* agent.pushMessage(message)
      yield* provider.nextEvent("Updated")
      const { bundles, svid } = yield* provider.x509Context
      expect(svid.fingerprint).toBe(context.svid.fingerprint)
      expect(bundles.bundles.size).toBe(1001)
    })
  )

  it.scopedLive("it is there and says nothing: Unavailable after the initial wait", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const agent = yield* FakeWorkloadApi.make()
      const provider = yield* LiveProvider.make({ endpoint: agent.endpoint, initialTimeout: "50 millis" })
      expect(yield* reasonOf(provider.x509Context)).toBe("Unavailable")
      yield* agent.push(yield* authority.context())
      yield* provider.nextEvent("Updated")
      expect(yield* reasonOf(provider.x509Context)).toBe("ok")
    })
  )

  it.scopedLive("it answers late: waited for", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const agent = yield* FakeWorkloadApi.make()
      yield* agent.delay("100 millis")
      yield* agent.push(yield* authority.context())
      const provider = yield* LiveProvider.make({ endpoint: agent.endpoint })
      expect(yield* reasonOf(provider.x509Context)).toBe("ok")
    })
  )

  it.scopedLive("it is not there at all: Unavailable, and found as soon as it is", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const agent = yield* FakeWorkloadApi.make()
      yield* agent.stop
      const provider = yield* LiveProvider.make({ endpoint: agent.endpoint })
      expect((yield* provider.nextEvent("Disconnected")).description).toMatch(/UNAVAILABLE.*ENOENT/)
      yield* agent.restart
      yield* agent.push(yield* authority.context())
      yield* provider.nextEvent("Updated")
    })
  )

  it.scopedLive("it delivers two SVIDs: the first is the default, and a hint selects", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const partner = yield* DevAuthority.make({ trustDomain: "partner.org" })
      const agent = yield* FakeWorkloadApi.make()
      yield* agent.push(
        X509Context.make({
          svid: yield* authority.issue({ path: "/web", hint: "internal" }),
          others: [yield* authority.issue({ path: "/shop", hint: "external" })],
          bundles: yield* DevAuthority.bundles([authority, partner])
        })
      )
      const standard = yield* LiveProvider.make({ endpoint: agent.endpoint })
      const selecting = yield* LiveProvider.make({ endpoint: agent.endpoint, select: { hint: "external" } })
      expect((yield* standard.x509Context).svid.spiffeId).toBe("spiffe://example.org/web")
      const { bundles, svid } = yield* selecting.x509Context
      expect(svid.spiffeId).toBe("spiffe://example.org/shop")
      expect(Array.from(bundles.bundles.values())).toStrictEqual([authority.bundle, partner.bundle])
    })
  )

  const overTheWire = new Set([
    "garbage",
    "no SVID",
    "a key that does not match the certificate",
    "an expired SVID",
    "a leaf that is a CA",
    "a spiffe_id that is not the certificate's",
    "a bundle without CA"
  ])
  for (const { bytes, reason, title } of unusableUpdates.filter(({ title }) => overTheWire.has(title))) {
    it.scopedLive(`it pushes ${title}: discarded, and the last good identity serves`, () =>
      Effect.gen(function* () {
        const { agent, authority, fingerprint, first, provider } = yield* served
        yield* agent.pushBytes(yield* bytes({ authority, good: messageOf(first) }))
        expect((yield* provider.nextEvent("UpdateDiscarded")).reason).toBe(reason)
        expect(yield* fingerprint).toBe(first.svid.fingerprint)
        expect(yield* agent.calls).toBe(1)
        const next = yield* authority.context()
        yield* agent.push(next)
        yield* provider.nextEvent("Updated")
        expect(yield* fingerprint).toBe(next.svid.fingerprint)
      })
    )
  }

  it.scopedLive("it pushes what corrupt pushes: garbage", () =>
    Effect.gen(function* () {
      const { agent, provider } = yield* served
      yield* agent.corrupt
      expect((yield* provider.nextEvent("UpdateDiscarded")).reason).toBe("Malformed")
    })
  )

  it.scopedLive("it pushes more than the limit: the stream ends, and the last good identity serves", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const agent = yield* FakeWorkloadApi.make()
      const first = yield* authority.context()
      yield* agent.push(first)
      const size = Redacted.value(WorkloadMessage.encodeX509SvidResponse(messageOf(first))).length
      const provider = yield* LiveProvider.make({ endpoint: agent.endpoint, maxMessageBytes: size + 100 })
      yield* provider.nextEvent("Updated")
      yield* agent.pushBytes(new Uint8Array(size + 101))
      expect((yield* provider.nextEvent("Disconnected")).reason).toBe("LimitExceeded")
      expect((yield* provider.x509Context).svid.fingerprint).toBe(first.svid.fingerprint)
    })
  )
})
