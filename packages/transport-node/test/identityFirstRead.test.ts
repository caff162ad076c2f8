import { SpiffeBundle, TrustDomain, X509Bundle, X509Svid } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { assert, describe, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { readOnce } from "../src/internal/files/identityRotation.js"
import type { Sources } from "../src/internal/files/parts.js"
import { bundle, certificate, failure, federated, key, keyPem, put, setting, sources } from "./identityOfFiles.js"

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
