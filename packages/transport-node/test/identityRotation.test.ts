import {
  type IdentityError,
  IdentityProvider,
  SpiffeBundle,
  TrustDomain,
  X509Bundle,
  type X509Context,
  X509Svid
} from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, IdentityMonitor } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import {
  Chunk,
  Clock,
  Duration,
  Effect,
  Either,
  Fiber,
  Layer,
  Logger,
  Queue,
  Redacted,
  Stream,
  TestClock
} from "effect"
import type { IdentityFileEvent } from "../src/IdentityFileEvent.js"
import { make, readOnce } from "../src/internal/files/identityRotation.js"
import type { Sources } from "../src/internal/files/parts.js"
import { MemoryFiles } from "./identityMemoryFiles.js"

const certificate = "/id/svid.pem"
const key = "/id/svid_key.pem"
const bundle = "/id/bundle.pem"

const partner = TrustDomain.make("partner.example")

const sources: Sources = {
  certificate,
  key,
  bundle,
  federatedBundles: new Map(),
  trustDomain: undefined
}

const federated: Sources = { ...sources, federatedBundles: new Map([[partner, "/id/partner.json"]]) }

const keyPem = (svid: X509Svid.X509Svid): string => Redacted.value(X509Svid.privateKeyPem(svid))

/** Writes without events; the files of the arguments only. */
const put = (
  memory: MemoryFiles,
  parts: { readonly svid?: X509Svid.X509Svid; readonly bundle?: X509Bundle.X509Bundle }
): void => {
  if (parts.svid !== undefined) {
    memory.set(certificate, X509Svid.certificatesPem(parts.svid))
    memory.set(key, keyPem(parts.svid))
  }
  if (parts.bundle !== undefined) memory.set(bundle, X509Bundle.toPem(parts.bundle))
}

/** An authority and two of its SVIDs: minted once, at the time every test begins at. */
const minted = Effect.runSync(
  Effect.cached(
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      const [first, second] = yield* Effect.all([authority.issue({ path: "/api" }), authority.issue({ path: "/api" })])
      return { authority, first, second }
    })
  )
)

/** These, and a file system with the first SVID. */
const setting = Effect.map(minted, ({ authority, first, second }) => {
  const memory = new MemoryFiles()
  put(memory, { svid: first, bundle: authority.bundle })
  return { authority, first, second, memory }
})

/** A provider over the files, and all that it reports. */
const provide = Effect.fnUntraced(function* (memory: MemoryFiles, from: Sources = sources) {
  const events: Array<IdentityFileEvent> = []
  const audit: Array<AuditEvent.AuditEvent> = []
  const provider = yield* make(memory.files, {
    sources: from,
    debounce: Duration.millis(50),
    pollInterval: Duration.seconds(5),
    onEvent: (event) => Effect.sync(() => events.push(event))
  })
  yield* Layer.build(
    IdentityMonitor.layer({ interval: "1 day" }).pipe(
      Layer.provide(Layer.succeed(IdentityProvider.IdentityProvider, provider)),
      Layer.provide(AuditLog.layerMemory(audit))
    )
  )
  // The look after the watchers were opened.
  yield* TestClock.adjust(0)
  const serving = Effect.map(provider.x509Context, ({ svid }) => svid.fingerprint)
  const tags = () => events.map(({ _tag }) => _tag)
  const rejections = () =>
    events.flatMap((event) => (event._tag === "IdentityRejected" ? [`${event.reason}: ${event.description}`] : []))
  const problems = () =>
    audit.flatMap((event) =>
      event._tag === "IdentityProblem" ? [`${event.problem} ${event.reason}: ${event.description}`] : []
    )
  return { provider, events, serving, tags, rejections, audit, problems }
})

const poll = TestClock.adjust("5 seconds")
const rest = TestClock.adjust("50 millis")

const failure = (effect: Effect.Effect<X509Context.X509Context, IdentityError.IdentityError>): Effect.Effect<string> =>
  Effect.map(Effect.either(effect), (result) =>
    Either.match(result, { onLeft: (error) => `${error.reason}: ${error.description}`, onRight: () => "no failure" })
  )

describe("identity from files: the first read", () => {
  it.effect("gives the SVID and the bundles, PEM or SPIFFE bundle document by content", () =>
    Effect.gen(function* () {
      const { authority, first, memory } = yield* setting
      const other = yield* DevAuthority.make({ trustDomain: "partner.example" })
      memory.set(bundle, SpiffeBundle.toJson(SpiffeBundle.make({ x509Bundle: authority.bundle })))
      memory.set("/id/partner.json", `\n  ${SpiffeBundle.toJson(SpiffeBundle.make({ x509Bundle: other.bundle }))}`)
      const read = yield* readOnce(memory.files, federated)
      assert.strictEqual(read.svid.fingerprint, first.fingerprint)
      assert.strictEqual(read.svid.certificates.length, 2)
      assert.deepStrictEqual(
        Array.from(read.bundles.bundles, ([domain, { generation }]) => [domain, generation]).sort(),
        [
          ["example.org", authority.bundle.generation],
          ["partner.example", other.bundle.generation]
        ]
      )
      memory.set("/id/partner.json", X509Bundle.toPem(other.bundle))
      assert.strictEqual((yield* readOnce(memory.files, federated)).bundles.generation, read.bundles.generation)
    })
  )

  it.effect("one file may hold the certificate and the key", () =>
    Effect.gen(function* () {
      const { first, memory } = yield* setting
      memory.set(certificate, `${keyPem(first)}${X509Svid.certificatesPem(first)}`)
      const read = yield* readOnce(memory.files, { ...sources, key: certificate })
      assert.strictEqual(read.svid.fingerprint, first.fingerprint)
    })
  )

  it.effect("fails with the path and the reason, for each thing that can be wrong", () =>
    Effect.gen(function* () {
      const { authority, first, memory, second } = yield* setting
      const good = new Map(memory.contents)
      const pem = X509Svid.certificatesPem(first)
      const other = yield* DevAuthority.make({ trustDomain: "partner.example" })
      const short = yield* authority.issue({ ttl: "1 hour" })
      const cases: ReadonlyArray<readonly [string, () => unknown, RegExp]> = [
        [
          "no certificate",
          () => memory.contents.delete(certificate),
          /^Unavailable: certificate \/id\/svid.pem: .*ENOENT/
        ],
        ["no key", () => memory.contents.delete(key), /^Unavailable: key \/id\/svid_key.pem: .*ENOENT/],
        ["no bundle", () => memory.contents.delete(bundle), /^Unavailable: bundle \/id\/bundle.pem: .*ENOENT/],
        ["empty certificate", () => memory.set(certificate, ""), /^Malformed: certificate .*svid.pem: .*empty/],
        ["empty key", () => memory.set(key, ""), /^Malformed: key .*svid_key.pem: .*empty/],
        ["empty bundle", () => memory.set(bundle, ""), /^Malformed: bundle .*bundle.pem: .*empty/],
        ["cut certificate", () => memory.set(certificate, pem.slice(0, 300)), /^Malformed: .*svid.pem.*PEM block/],
        ["cut key", () => memory.set(key, keyPem(first).slice(0, 100)), /^Malformed: .*svid_key.pem.*PEM block/],
        ["cut bundle", () => memory.set(bundle, pem.slice(0, -9)), /^Malformed: bundle .*bundle.pem/],
        ["cut document", () => memory.set(bundle, `{"keys": [`), /^Malformed: bundle .*bundle.pem.*JSON/],
        ["document in another encoding", () => memory.set(bundle, Uint8Array.of(0x7b, 0xff)), /bundle.pem.*UTF-8/],
        ["garbage", () => memory.set(certificate, "\u0000garbage"), /^Malformed: .*svid.pem/],
        ["a key of another certificate", () => memory.set(key, keyPem(second)), /^Malformed: .*svid_key.pem.*another/],
        ["a CA in place of the SVID", () => memory.set(certificate, X509Bundle.toPem(authority.bundle)), /svid.pem/],
        ["a foreign bundle", () => memory.set(bundle, X509Bundle.toPem(other.bundle)), /^InvalidSvid: .*svid.pem/]
      ]
      for (const [name, spoil, expected] of cases) {
        spoil()
        assert.match(yield* failure(readOnce(memory.files, sources)), expected, name)
        for (const [path, content] of good) memory.set(path, content)
      }
      put(memory, { svid: short })
      yield* TestClock.adjust("61 minutes")
      assert.match(yield* failure(readOnce(memory.files, sources)), /^Expired: certificate \/id\/svid.pem/)
      put(memory, { svid: yield* authority.issue({ validity: "Future" }) })
      assert.match(yield* failure(readOnce(memory.files, sources)), /^NotYetValid: certificate \/id\/svid.pem/)
    })
  )

  it.effect("the SVID is of the trust domain that was asked for", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      const asked = (name: string) => readOnce(memory.files, { ...sources, trustDomain: TrustDomain.make(name) })
      assert.strictEqual(yield* failure(asked("example.org")), "no failure")
      assert.match(yield* failure(asked("example.com")), /^InvalidSvid: .*expected an SVID of trust domain example.com/)
    })
  )

  it.effect("a federated bundle cannot be that of the own trust domain", () =>
    Effect.gen(function* () {
      const { authority, memory } = yield* setting
      memory.set("/id/own.pem", X509Bundle.toPem(authority.bundle))
      const own: Sources = { ...sources, federatedBundles: new Map([[authority.trustDomain, "/id/own.pem"]]) }
      assert.match(yield* failure(readOnce(memory.files, own)), /^Malformed: bundle \/id\/own.pem: .*our own/)
    })
  )
})

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

describe("identity from files: watching and reporting", () => {
  it.scoped("only changes of the files and links concerned cause a read", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      yield* provide(memory)
      const before = memory.reads
      memory.touch("/id/unrelated")
      yield* TestClock.adjust(0)
      assert.strictEqual(memory.reads, before)
      memory.touch(certificate)
      yield* TestClock.adjust(0)
      assert.isAbove(memory.reads, before)
    })
  )

  it.scoped("a directory that cannot be watched is reported once, tried again, and polled meanwhile", () =>
    Effect.gen(function* () {
      const { memory, second } = yield* setting
      memory.watchFailures.set("/id", "ENOSPC")
      const { events, serving } = yield* provide(memory)
      yield* poll
      yield* poll
      const failed = events.filter(({ _tag }) => _tag === "WatchFailed")
      assert.deepStrictEqual(failed, [{ _tag: "WatchFailed", directory: "/id", code: "ENOSPC" }])
      put(memory, { svid: second })
      yield* poll
      yield* rest
      assert.strictEqual(yield* serving, second.fingerprint)
      memory.watchFailures.clear()
      yield* poll
      assert.strictEqual(memory.watchers.get("/id")?.size, 1)
    })
  )

  it.scoped("a directory that was replaced, or whose watcher broke, is watched anew", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      yield* provide(memory)
      for (const event of ["id", "broken"]) {
        const [before] = memory.watchers.get("/id") ?? []
        if (event === "broken") before?.broken("EIO")
        else before?.notify(event)
        yield* TestClock.adjust(0)
        const after = Array.from(memory.watchers.get("/id") ?? [])
        assert.strictEqual(after.length, 1)
        assert.notStrictEqual(after[0], before)
      }
    })
  )

  it.effect("directories of an old generation are watched no more, and none after the end", () =>
    Effect.gen(function* () {
      const { first, memory, authority } = yield* setting
      memory.contents.clear()
      for (const path of [certificate, key, bundle]) {
        memory.link(path, path.replace("/id/", "..data/"))
      }
      const publish = (generation: number, svid: X509Svid.X509Svid) => {
        memory.set(`/id/..${generation}/svid.pem`, X509Svid.certificatesPem(svid))
        memory.set(`/id/..${generation}/svid_key.pem`, keyPem(svid))
        memory.set(`/id/..${generation}/bundle.pem`, X509Bundle.toPem(authority.bundle))
        memory.link("/id/..data", `..${generation}`)
        memory.touch("/id/..data")
      }
      const watched = () => Array.from(memory.watchers).flatMap(([path, { size }]) => (size === 0 ? [] : [path]))
      publish(1, first)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { serving } = yield* provide(memory)
          assert.deepStrictEqual(watched().sort(), ["/id", "/id/..1"])
          const second = yield* authority.issue({ path: "/api" })
          publish(2, second)
          yield* rest
          assert.strictEqual(yield* serving, second.fingerprint)
          assert.deepStrictEqual(watched().sort(), ["/id", "/id/..2"])
        })
      )
      assert.deepStrictEqual(watched(), [])
    })
  )

  it.scoped("a key that everybody can read is reported once, and again when it happens again", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      memory.worldReadable.add(key).add(bundle).add(certificate)
      const { events, tags } = yield* provide(memory)
      yield* poll
      yield* poll
      const exposures = () => tags().filter((tag) => tag === "KeyExposed").length
      assert.strictEqual(exposures(), 1)
      assert.deepInclude(events, { _tag: "KeyExposed", path: key })
      memory.worldReadable.delete(key)
      yield* poll
      memory.worldReadable.add(key)
      yield* poll
      assert.strictEqual(exposures(), 2)
    })
  )

  it.scoped("a defect in the hook does not stop the rotation", () =>
    Effect.gen(function* () {
      const { memory, second } = yield* setting
      const provider = yield* make(memory.files, {
        sources,
        debounce: Duration.millis(50),
        pollInterval: Duration.seconds(5),
        onEvent: () => {
          throw new Error("the hook")
        }
      })
      yield* TestClock.adjust(0)
      put(memory, { svid: second })
      memory.touch(key)
      yield* rest
      assert.strictEqual((yield* provider.x509Context).svid.fingerprint, second.fingerprint)
    })
  )

  it.scoped(
    "what cannot be used is in the audit log by itself, once while it lasts, and the last good one serves",
    () =>
      Effect.gen(function* () {
        const { authority, first, memory, second } = yield* setting
        const { problems, serving } = yield* provide(memory)
        const spoil: ReadonlyArray<readonly [() => void, RegExp]> = [
          [() => memory.set(key, keyPem(second)), /^Discarded Malformed: certificate and key .*svid.pem/],
          [() => memory.set(certificate, "garbage"), /^Discarded Malformed: certificate and key .*svid.pem/],
          [() => memory.set(bundle, "garbage"), /^Discarded Malformed: bundle .*bundle.pem/],
          [() => memory.contents.delete(bundle), /^Unavailable Unavailable: bundle .*bundle.pem: .*ENOENT/]
        ]
        for (const [index, [change, expected]] of spoil.entries()) {
          change()
          for (let n = 0; n < 3; n++) yield* Effect.zipRight(poll, rest)
          assert.lengthOf(problems(), index + 1)
          assert.match(problems()[index] ?? "", expected)
          assert.strictEqual(yield* serving, first.fingerprint)
          put(memory, { svid: first, bundle: authority.bundle })
          yield* Effect.zipRight(poll, rest)
        }
        assert.lengthOf(problems(), spoil.length)
      })
  )

  it.scoped(
    "a bundle with an entry that cannot be read serves without it, at the start too, and the entry is on record",
    () =>
      Effect.gen(function* () {
        const { authority, first, memory, second } = yield* setting
        const spoilt = X509Bundle.toPem(authority.bundle).replace(
          "-----BEGIN",
          "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN"
        )
        memory.set(bundle, spoilt)
        const { problems, serving } = yield* provide(memory)
        assert.strictEqual(yield* serving, first.fingerprint)
        for (let n = 0; n < 3; n++) yield* Effect.zipRight(poll, rest)
        assert.lengthOf(problems(), 1)
        assert.match(problems()[0] ?? "", /^Discarded Malformed: bundle .*bundle.pem: .* serve: certificate 1: /)
        put(memory, { svid: second })
        yield* Effect.zipRight(poll, rest)
        assert.strictEqual(yield* serving, second.fingerprint)
        assert.lengthOf(problems(), 1)
      })
  )

  it.scoped("an SVID that expires while it serves is one problem, though files and clock both say so", () =>
    Effect.gen(function* () {
      const { authority, memory } = yield* setting
      put(memory, { svid: yield* authority.issue({ path: "/api", ttl: "20 seconds" }) })
      const { problems } = yield* provide(memory)
      yield* TestClock.adjust("1 minute")
      assert.lengthOf(
        problems().filter((problem) => !problem.startsWith("Stale")),
        1
      )
      assert.match(problems().at(-1) ?? "", /^Expired/)
      // Another one that has expired cannot be used.
      put(memory, { svid: yield* authority.issue({ path: "/api", validity: "Expired" }) })
      yield* Effect.zipRight(poll, rest)
      assert.match(problems().at(-1) ?? "", /^Discarded Expired/)
    })
  )

  it.scoped("what was wrong before anybody watched is in the audit log too", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      memory.worldReadable.add(key)
      memory.watchFailures.set("/id", "EMFILE")
      const { problems } = yield* provide(memory)
      yield* poll
      assert.deepStrictEqual(
        problems().map((problem) => problem.split(":")[0]),
        ["Exposed KeyExposed", "Unavailable WatchFailed"]
      )
    })
  )

  it.scoped("no report, error or log line holds a piece of any key", () =>
    Effect.gen(function* () {
      const { memory, first, second } = yield* setting
      const lines: Array<string> = []
      const logger = Logger.make((entry) => {
        lines.push(Logger.logfmtLogger.log(entry), Logger.structuredLogger.log(entry).toString())
        lines.push(JSON.stringify(Logger.structuredLogger.log(entry)))
      })
      const secret = keyPem(first)
      const spoiled = [
        secret.slice(0, -20),
        secret.slice(28),
        secret.replace("PRIVATE", "PUBLIC"),
        secret.replace("END", "END "),
        `${secret}${keyPem(second)}`,
        secret.replace(/\n/g, ""),
        secret.replace(/[A-Z]/g, (letter) => letter.toLowerCase()),
        keyPem(second)
      ]
      const failures: Array<unknown> = []
      yield* Effect.gen(function* () {
        const { audit, events } = yield* provide(memory)
        for (const path of [key, certificate, bundle]) {
          const good = memory.contents.get(path) ?? ""
          for (const content of spoiled) {
            memory.write(path, content)
            yield* rest
            const result = yield* Effect.either(readOnce(memory.files, sources))
            if (Either.isLeft(result)) failures.push(result.left, result.left.stack, String(result.left))
          }
          memory.write(path, good)
          yield* rest
        }
        assert.isAbove(audit.length, 10)
        failures.push(events, audit)
      }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
      assert.isAbove(failures.length, 20)
      const everything = `${lines.join("\n")}\n${failures.map((one) => `${one} ${JSON.stringify(one)}`).join("\n")}`
      for (const pem of [secret, keyPem(second)]) {
        const body = pem.split("\n").slice(1, -2).join("")
        for (let from = 40; from + 8 <= body.length; from += 4) {
          const piece = body.slice(from, from + 8)
          assert.notInclude(everything.toLowerCase(), piece.toLowerCase())
        }
      }
      assert.include(everything, first.spiffeId)
    })
  )
})
