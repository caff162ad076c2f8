import { DevAuthority } from "@agentweave/testkit"
import type { WorkloadApi } from "@agentweave/workload-api"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Either, Redacted, TestClock } from "effect"
import { messageOf } from "./support/messages.js"
import * as ScriptedAgent from "./support/scriptedAgent.js"
import { unusableBundles, unusableUpdates } from "./support/unusableUpdates.js"

const authority = DevAuthority.make({ trustDomain: "example.org" })

describe("an update is discarded, the last good one serves on, and an event says why", () => {
  for (const { bytes, reason, says, title } of unusableUpdates) {
    it.scoped(title, () =>
      Effect.gen(function* () {
        // Late enough that a certificate which expired an hour ago still began after 1970.
        yield* TestClock.setTime(Date.UTC(2030, 0))
        const issuer = yield* authority
        const context = yield* issuer.context()
        const { events, agentHealth, identity, nextCall, nextEvent, openCalls } = yield* ScriptedAgent.make({
          maxAuthorities: 3
        })
        const call = yield* nextCall
        yield* call.push(context)
        yield* nextEvent("Updated")
        const good = yield* identity.x509Context
        yield* call.pushBytes(Redacted.make(yield* bytes({ authority: issuer, good: messageOf(context) })))
        const event = yield* events.take
        expect(event).toMatchObject({ _tag: "UpdateDiscarded", reason })
        expect(event).toHaveProperty("description", expect.stringContaining(says))
        expect(yield* identity.x509Context).toBe(good)
        expect(yield* agentHealth).toBe("Degraded")
        expect(yield* openCalls).toBe(1)
      })
    )
  }

  it.scoped("and when there is no good one yet, callers go on waiting", () =>
    Effect.gen(function* () {
      const issuer = yield* authority
      const { identity, nextCall, nextEvent } = yield* ScriptedAgent.make({ maxAuthorities: 3 })
      const call = yield* nextCall
      const good = messageOf(yield* issuer.context())
      for (const { bytes } of unusableUpdates.slice(0, 10)) {
        yield* call.pushBytes(Redacted.make(yield* bytes({ authority: issuer, good })))
        yield* nextEvent("UpdateDiscarded")
      }
      const waiting = yield* Effect.fork(Effect.either(identity.x509Context))
      yield* call.push(yield* issuer.context())
      expect(Either.isRight(yield* waiting)).toBe(true)
    })
  )
})

describe("a foreign domain's unusable bundle takes away that domain and nothing else", () => {
  for (const { bundles, reason, says, title, trustDomain } of unusableBundles) {
    it.scoped(title, () =>
      Effect.gen(function* () {
        const issuer = yield* authority
        const partner = yield* DevAuthority.make({ trustDomain: "partner.org" })
        const friend = yield* DevAuthority.make({ trustDomain: "friend.org" })
        const { events, agentHealth, identity, nextCall, nextEvent } = yield* ScriptedAgent.make({ maxAuthorities: 3 })
        const call = yield* nextCall
        yield* call.push(yield* issuer.context({ federatesWith: [partner] }))
        yield* nextEvent("Updated")
        const rotated = yield* issuer.context({ federatesWith: [friend] })
        const good = messageOf(rotated)
        const bad = yield* bundles({ authority: issuer, good })
        const message = { ...good, federatedBundles: new Map([...bad, ...good.federatedBundles]) }
        yield* call.pushMessage(message)
        const event = yield* events.take
        expect(event).toMatchObject({ _tag: "BundleDiscarded", reason, trustDomain })
        expect(event).toHaveProperty("description", expect.stringContaining(says))
        yield* nextEvent("Updated")
        const served = yield* identity.x509Context
        expect(served.svid.fingerprint).toBe(rotated.svid.fingerprint)
        expect(served.bundles).toStrictEqual(rotated.bundles)
        expect(yield* agentHealth).toBe("Healthy")

        // The agent repeats the whole with every update: that is no news.
        const again = yield* issuer.context({ federatesWith: [friend] })
        const repeated = { ...messageOf(again), federatedBundles: message.federatedBundles }
        yield* call.pushMessage(repeated)
        expect(yield* events.take).toMatchObject({ _tag: "Updated", fingerprint: again.svid.fingerprint })
        yield* call.push(again)
        yield* call.pushMessage(repeated)
        expect(yield* events.take).toMatchObject({ _tag: "BundleDiscarded", trustDomain })
      })
    )
  }
})

describe("an unusable bundle that came with one of several SVIDs", () => {
  const deliver = (select?: WorkloadApi.Selection) =>
    Effect.gen(function* () {
      const issuer = yield* authority
      const partner = yield* DevAuthority.make({ trustDomain: "partner.org" })
      const own = yield* issuer.context({ hint: "own" })
      const other = messageOf(yield* partner.context({ hint: "other" }))
      const spoilt = other.svids.map((svid) => ({ ...svid, bundle: Uint8Array.of(0x30, 0x03, 0x01) }))
      const { events, identity, nextCall } = yield* ScriptedAgent.make({ select })
      const call = yield* nextCall
      const good = messageOf(own)
      yield* call.pushMessage({ ...good, svids: [...good.svids, ...spoilt] })
      return { event: yield* events.take, identity, own }
    })

  it.scoped("takes away that SVID when it is of another trust domain than ours, and nothing else", () =>
    Effect.gen(function* () {
      const { event, identity, own } = yield* deliver()
      expect(event).toMatchObject({ _tag: "BundleDiscarded", reason: "InvalidBundle", trustDomain: "partner.org" })
      const served = yield* identity.x509Context
      expect(served.svids.map(({ fingerprint }) => fingerprint)).toStrictEqual([own.svid.fingerprint])
      expect(served.bundles).toStrictEqual(own.bundles)
    })
  )

  it.scoped("discards the update when the SVID is the one selected: another one is never taken in its place", () =>
    Effect.gen(function* () {
      const { event } = yield* deliver({ hint: "other" })
      expect(event).toMatchObject({ _tag: "UpdateDiscarded", reason: "InvalidBundle" })
    })
  )
})

describe("a bundle keeps its good authorities, and an event names what it left out, once", () => {
  it.scoped("a leaf and an authority that cannot be read, in our own bundle and in a foreign one", () =>
    Effect.gen(function* () {
      const issuer = yield* authority
      const partner = yield* DevAuthority.make({ trustDomain: "partner.org" })
      const { agentHealth, events, identity, nextCall } = yield* ScriptedAgent.make()
      const call = yield* nextCall
      const context = yield* issuer.context({ federatesWith: [partner] })
      const good = messageOf(context)
      const [svid] = good.svids
      const version1 = Buffer.from(issuer.bundle.authorities[0] ?? [])
      version1.writeUInt8(0, version1.indexOf(Buffer.from("a003020102", "hex")) + 4)
      const spoil = (bundle: Uint8Array) => Buffer.concat([version1, bundle, svid?.x509Svid ?? new Uint8Array(0)])
      const spoilt = {
        svids: good.svids.map((entry) => ({ ...entry, bundle: spoil(entry.bundle) })),
        federatedBundles: new Map(Array.from(good.federatedBundles, ([id, bundle]) => [id, spoil(bundle)]))
      }
      yield* call.pushMessage(spoilt)
      for (const trustDomain of ["example.org", "partner.org"]) {
        const event = yield* events.take
        expect(event).toMatchObject({ _tag: "AuthoritiesLeftOut", trustDomain })
        expect("description" in event ? event.description : "").toMatch(
          /certificate 1: version is not 3.*; the certificate with fingerprint .*: no CA$/
        )
      }
      expect((yield* events.take)._tag).toBe("Updated")
      const { bundles } = yield* identity.x509Context
      expect(bundles.generation).toBe(context.bundles.generation)
      expect(yield* agentHealth).toBe("Healthy")
      yield* call.pushMessage(spoilt)
      yield* call.pushMessage(good)
      yield* call.pushMessage(spoilt)
      expect((yield* events.take)._tag).toBe("AuthoritiesLeftOut")
      expect((yield* events.take)._tag).toBe("AuthoritiesLeftOut")
      expect(yield* events.size).toBe(0)
    })
  )
})

describe("what may look odd is taken", () => {
  it.scoped("an empty federated bundle: a trust domain that trusts nobody", () =>
    Effect.gen(function* () {
      const issuer = yield* authority
      const { identity, nextCall } = yield* ScriptedAgent.make()
      const good = messageOf(yield* issuer.context())
      const message = { ...good, federatedBundles: new Map([["spiffe://partner.org", new Uint8Array(0)]]) }
      yield* (yield* nextCall).pushMessage(message)
      const { bundles } = yield* identity.x509Context
      expect(Array.from(bundles.bundles.values(), ({ authorities }) => authorities.length)).toStrictEqual([1, 0])
    })
  )

  it.scoped("SVIDs of two trust domains, each with its own bundle", () =>
    Effect.gen(function* () {
      const one = yield* authority
      const two = yield* DevAuthority.make({ trustDomain: "partner.org" })
      const { identity, nextCall } = yield* ScriptedAgent.make()
      const own = messageOf(yield* one.context())
      const other = messageOf(yield* two.context())
      yield* (yield* nextCall).pushMessage({ ...own, svids: [...own.svids, ...other.svids] })
      const { bundles, svids } = yield* identity.x509Context
      expect(svids.map(({ spiffeId }) => spiffeId)).toStrictEqual([
        "spiffe://example.org/workload",
        "spiffe://partner.org/workload"
      ])
      expect(Array.from(bundles.bundles.keys())).toStrictEqual(["example.org", "partner.org"])
    })
  )

  it.scoped("the own bundle once more among the federated ones", () =>
    Effect.gen(function* () {
      const issuer = yield* authority
      const { identity, nextCall } = yield* ScriptedAgent.make()
      const good = messageOf(yield* issuer.context())
      const bundle = good.svids[0]?.bundle ?? new Uint8Array(0)
      yield* (yield* nextCall).pushMessage({ ...good, federatedBundles: new Map([["spiffe://example.org", bundle]]) })
      expect((yield* identity.x509Context).bundles.bundles.size).toBe(1)
    })
  )

  it.scoped("intermediates after the leaf", () =>
    Effect.gen(function* () {
      const issuer = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 2 })
      const { identity, nextCall } = yield* ScriptedAgent.make()
      yield* (yield* nextCall).push(yield* issuer.context())
      expect((yield* identity.x509Context).svid.certificates.length).toBe(3)
    })
  )
})
