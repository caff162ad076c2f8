import { SpiffeBundle, X509Bundle, type X509Context, X509Svid } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { assert, describe, it } from "@effect/vitest"
import { Chunk, Clock, Effect, Fiber, Queue, Stream, TestClock } from "effect"
import {
  bundle,
  certificate,
  failure,
  federated,
  key,
  keyPem,
  partner,
  poll,
  provide,
  put,
  rest,
  setting
} from "./identityOfFiles.js"

describe("identity from files: rotation", () => {
  it.scoped("a change that the watcher notices is taken after the debounce", () =>
    Effect.gen(function* () {
      const { first, memory, second } = yield* setting
      const { events, serving, tags } = yield* provide(memory)
      assert.strictEqual(yield* serving, first.fingerprint)
      put(memory, { svid: second })
      memory.touch(key)
      yield* TestClock.adjust("49 millis")
      assert.strictEqual(yield* serving, first.fingerprint)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* serving, second.fingerprint)
      assert.deepStrictEqual(tags(), ["IdentityLoaded", "IdentityLoaded"])
      assert.deepInclude(events[1], {
        spiffeId: "spiffe://example.org/api",
        serialNumber: second.serialNumber,
        fingerprint: second.fingerprint,
        notAfter: second.notAfter
      })
    })
  )

  it.scoped("a change that no watcher notices is found by the poll", () =>
    Effect.gen(function* () {
      const { first, memory, second } = yield* setting
      const { serving } = yield* provide(memory)
      put(memory, { svid: second })
      yield* TestClock.adjust("4999 millis")
      assert.strictEqual(yield* serving, first.fingerprint)
      yield* TestClock.adjust("1 millis")
      yield* rest
      assert.strictEqual(yield* serving, second.fingerprint)
    })
  )

  it.scoped("a change between the first read and the watch is not lost", () =>
    Effect.gen(function* () {
      const { memory, second } = yield* setting
      memory.beforeRead = (_path, count) => {
        if (count === 6) queueMicrotask(() => put(memory, { svid: second }))
      }
      const { serving } = yield* provide(memory)
      yield* rest
      assert.strictEqual(yield* serving, second.fingerprint)
    })
  )

  it.scoped("changes emits the current identity, then every rotation, and nothing for equal content", () =>
    Effect.gen(function* () {
      const { authority, first, memory, second } = yield* setting
      const { provider } = yield* provide(memory)
      const emitted = yield* Queue.unbounded<X509Context.X509Context>()
      yield* Effect.forkScoped(Stream.runForEach(provider.changes, (context) => Queue.offer(emitted, context)))
      yield* TestClock.adjust(0)
      memory.write(certificate, `# the same, with a remark\n${X509Svid.certificatesPem(first)}`)
      yield* rest
      memory.write(bundle, SpiffeBundle.toJson(SpiffeBundle.make({ x509Bundle: authority.bundle })))
      yield* rest
      yield* poll
      const before = yield* provider.x509Context
      put(memory, { svid: second })
      memory.touch(certificate)
      yield* rest
      const rotated = yield* authority.rotateRoot()
      memory.write(bundle, X509Bundle.toPem(rotated.bundle))
      yield* rest
      const seen = Chunk.toReadonlyArray(yield* Queue.takeAll(emitted))
      assert.deepStrictEqual(
        seen.map(({ bundles, svid }) => [svid.fingerprint, bundles.bundles.get(authority.trustDomain)?.generation]),
        [
          [first.fingerprint, authority.bundle.generation],
          [second.fingerprint, authority.bundle.generation],
          [second.fingerprint, rotated.bundle.generation]
        ]
      )
      assert.strictEqual(seen[0], before, "the very same object while nothing changed")
      assert.strictEqual(seen[1]?.svid, seen[2]?.svid)
    })
  )

  it.effect("changes ends with the provider", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      const emitted = yield* Effect.scoped(
        Effect.gen(function* () {
          const { provider } = yield* provide(memory)
          const fiber = yield* Effect.forkDaemon(Stream.runCollect(provider.changes))
          yield* TestClock.adjust(0)
          return fiber
        })
      )
      assert.strictEqual(Chunk.size(yield* Fiber.join(emitted)), 1)
    })
  )

  it.scoped("a chain that is being written in place is never taken short", () =>
    Effect.gen(function* () {
      const { memory, second } = yield* setting
      const { provider } = yield* provide(memory)
      const whole = X509Svid.certificatesPem(second)
      const leafOnly = whole.slice(0, whole.indexOf("-----BEGIN", 1))
      const lengths: Array<number> = []
      yield* Effect.forkScoped(
        Stream.runForEach(provider.changes, ({ svid }) => Effect.sync(() => lengths.push(svid.certificates.length)))
      )
      memory.set(key, keyPem(second))
      memory.write(certificate, leafOnly)
      yield* TestClock.adjust("30 millis")
      memory.write(certificate, whole)
      yield* TestClock.adjust("20 millis")
      yield* rest
      assert.deepStrictEqual(lengths, [2, 2])
      assert.strictEqual((yield* provider.x509Context).svid.fingerprint, second.fingerprint)
    })
  )

  it.scoped("files that never rest are taken after ten waits", () =>
    Effect.gen(function* () {
      const { authority, first, memory } = yield* setting
      const { serving } = yield* provide(memory)
      const successors = yield* Effect.replicateEffect(authority.issue({ path: "/api" }), 12)
      for (const [step, svid] of successors.entries()) {
        put(memory, { svid })
        if (step === 0) memory.touch(key)
        if (step <= 10) assert.strictEqual(yield* serving, first.fingerprint)
        yield* TestClock.adjust("25 millis")
        if (step === 10) assert.strictEqual(yield* serving, successors[10]?.fingerprint)
        if (step > 0) yield* TestClock.adjust("25 millis")
      }
    })
  )

  it.scoped("a link that comes to point to another file of its directory", () =>
    Effect.gen(function* () {
      const { authority, first, memory, second } = yield* setting
      const third = yield* authority.issue({ path: "/api" })
      memory.contents.delete(certificate)
      memory.contents.delete(key)
      const write = (name: string, svid: X509Svid.X509Svid) => {
        memory.set(`/id/${name}.pem`, `${keyPem(svid)}${X509Svid.certificatesPem(svid)}`)
        memory.touch(`/id/${name}.pem`)
      }
      const point = (name: string) => {
        for (const path of [certificate, key]) memory.link(path, `${name}.pem`)
        memory.touch(certificate)
      }
      write("a", first)
      write("b", second)
      point("a")
      const { serving } = yield* provide(memory)
      point("b")
      yield* rest
      assert.strictEqual(yield* serving, second.fingerprint)
      write("b", third)
      yield* rest
      assert.strictEqual(yield* serving, third.fingerprint)
    })
  )
})

describe("identity from files: faults", () => {
  it.scoped("a mismatched pair keeps the last good SVID, is reported once, and its end is reported", () =>
    Effect.gen(function* () {
      const { first, memory, second } = yield* setting
      const { rejections, serving, tags } = yield* provide(memory)
      memory.write(certificate, X509Svid.certificatesPem(second))
      yield* rest
      for (let polls = 0; polls < 5; polls++) yield* poll
      assert.strictEqual(yield* serving, first.fingerprint)
      assert.strictEqual(rejections().length, 1)
      assert.match(rejections()[0] ?? "", /^Malformed: certificate and key \/id\/svid.pem and \/id\/svid_key.pem: /)
      memory.write(key, keyPem(second))
      yield* rest
      assert.strictEqual(yield* serving, second.fingerprint)
      assert.deepStrictEqual(tags(), ["IdentityLoaded", "IdentityRejected", "IdentityLoaded", "IdentityRecovered"])
    })
  )

  it.scoped("truncated, empty, garbage and removed files keep the last good identity", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      const { provider, rejections } = yield* provide(memory)
      const good = new Map(memory.contents)
      const before = yield* provider.x509Context
      for (const path of [certificate, key, bundle]) {
        for (const spoiled of [good.get(path)?.slice(0, -40) ?? "", "", "garbage", undefined]) {
          const count = rejections().length
          if (spoiled === undefined) {
            memory.contents.delete(path)
            memory.touch(path)
          } else memory.write(path, spoiled)
          yield* rest
          assert.strictEqual(yield* provider.x509Context, before, path)
          assert.strictEqual(rejections().length, count + 1, path)
          assert.include(rejections()[count], path)
        }
        memory.write(path, good.get(path) ?? "")
        yield* rest
      }
      assert.strictEqual(yield* provider.x509Context, before)
    })
  )

  it.scoped("a root that is removed is trusted no more, even while the SVID's files are broken", () =>
    Effect.gen(function* () {
      const { authority, first, memory, second } = yield* setting
      const rotated = yield* authority.rotateRoot()
      const retired = yield* rotated.retireOldRoots
      put(memory, { bundle: rotated.bundle })
      const { provider } = yield* provide(memory)
      memory.set(key, keyPem(second))
      memory.write(bundle, X509Bundle.toPem(retired.bundle))
      yield* rest
      const context = yield* provider.x509Context
      assert.strictEqual(context.svid.fingerprint, first.fingerprint)
      assert.strictEqual(context.bundles.bundles.get(authority.trustDomain)?.generation, retired.bundle.generation)
    })
  )

  it.scoped("an SVID rotates while a bundle's file is broken", () =>
    Effect.gen(function* () {
      const { authority, memory, second } = yield* setting
      const { provider, rejections } = yield* provide(memory)
      put(memory, { svid: second })
      memory.write(bundle, "garbage")
      yield* rest
      const context = yield* provider.x509Context
      assert.strictEqual(context.svid.fingerprint, second.fingerprint)
      assert.strictEqual(context.bundles.bundles.get(authority.trustDomain)?.generation, authority.bundle.generation)
      assert.match(rejections().join(), /^Malformed: bundle \/id\/bundle.pem/)
    })
  )

  it.scoped("an SVID under a root that the bundle does not have yet waits for the bundle", () =>
    Effect.gen(function* () {
      const { authority, first, memory } = yield* setting
      const { rejections, serving } = yield* provide(memory)
      const rotated = yield* authority.rotateRoot()
      const next = yield* rotated.issue({ path: "/api" })
      put(memory, { svid: next })
      memory.touch(key)
      yield* rest
      assert.strictEqual(yield* serving, first.fingerprint)
      assert.match(rejections().join(), /^InvalidSvid: certificate \/id\/svid.pem: /)
      memory.write(bundle, X509Bundle.toPem(rotated.bundle))
      yield* rest
      assert.strictEqual(yield* serving, next.fingerprint)
    })
  )

  it.scoped("an SVID of another trust domain is refused", () =>
    Effect.gen(function* () {
      const { first, memory } = yield* setting
      const { rejections, serving } = yield* provide(memory)
      const other = yield* DevAuthority.make({ trustDomain: "partner.example" })
      put(memory, { svid: yield* other.issue(), bundle: other.bundle })
      memory.touch(key)
      yield* rest
      assert.strictEqual(yield* serving, first.fingerprint)
      assert.match(rejections().join(), /InvalidSvid: .*expected an SVID of trust domain example.org/)
    })
  )

  it.scoped("an expired SVID without successor is a failure at once, and ends with its successor", () =>
    Effect.gen(function* () {
      const { authority, memory } = yield* setting
      const first = yield* authority.issue({ path: "/api", ttl: "1 minute" })
      put(memory, { svid: first })
      const { provider, rejections, serving } = yield* provide(memory)
      yield* TestClock.setTime(first.notAfter)
      assert.strictEqual(yield* serving, first.fingerprint)
      yield* TestClock.adjust("1 millis")
      assert.match(yield* failure(provider.x509Context), /^Expired: expected an SVID for spiffe:\/\/example.org\/api/)
      yield* poll
      yield* poll
      assert.strictEqual(rejections().length, 1)
      assert.match(rejections().join(), /^Expired: certificate \/id\/svid.pem: /)
      const next = yield* authority.issue({ path: "/api" })
      put(memory, { svid: next })
      memory.touch(key)
      yield* rest
      assert.strictEqual(yield* serving, next.fingerprint)
    })
  )

  it.scoped("a successor that is not valid yet is taken when it is", () =>
    Effect.gen(function* () {
      const { first, memory, authority } = yield* setting
      const { rejections, serving } = yield* provide(memory)
      const now = yield* Clock.currentTimeMillis
      const validity = { notBefore: now + 60_000, notAfter: now + 600_000 }
      const future = yield* authority.issue({ path: "/api", validity })
      put(memory, { svid: future })
      memory.touch(key)
      yield* rest
      yield* poll
      assert.strictEqual(yield* serving, first.fingerprint)
      assert.strictEqual(rejections().length, 1)
      assert.match(rejections().join(), /^NotYetValid: certificate /)
      yield* TestClock.setTime(future.notBefore)
      yield* poll
      assert.strictEqual(yield* serving, future.fingerprint)
    })
  )

  it.scoped("an empty federated bundle document ends the trust in that domain", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      const other = yield* DevAuthority.make({ trustDomain: "partner.example" })
      memory.set("/id/partner.json", X509Bundle.toPem(other.bundle))
      const { provider } = yield* provide(memory, federated)
      const authorities = Effect.map(
        provider.x509Context,
        ({ bundles }) => bundles.bundles.get(partner)?.authorities.length
      )
      assert.strictEqual(yield* authorities, 1)
      memory.write("/id/partner.json", `{"keys": []}`)
      yield* rest
      assert.strictEqual(yield* authorities, 0)
    })
  )
})
