import { Buffer } from "node:buffer"
import { X509Certificate } from "node:crypto"
import { type IdentityError, TrustDomain, X509Bundle, X509BundleSet } from "@agentweave/spiffe"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Option } from "effect"
import { readCertificate } from "../src/internal/der/certificate.js"
import { itAtEpoch, makeShared } from "./support/gate.js"

const shared = makeShared({ intermediates: 1 })

const a = TrustDomain.make("a.test")
const b = TrustDomain.make("b.test")

/** Two certificates that can be read. */
const two = Effect.map(shared, ({ issuer, roots: [root] }) => [root.certificate, issuer.certificate] as const)

const refusal = (result: Either.Either<unknown, IdentityError.IdentityError>): string =>
  Either.match(result, { onLeft: (error) => `${error.reason}: ${error.description}`, onRight: () => "fine" })

describe("X509Bundle", () => {
  itAtEpoch("DER one by one, DER concatenated and PEM give one bundle, in order", () =>
    Effect.gen(function* () {
      const ders = yield* two
      const bundle = yield* X509Bundle.fromDer(a, ders)
      assert.deepStrictEqual(bundle.authorities, ders)
      assert.strictEqual(bundle.trustDomain, a)
      assert.deepStrictEqual(yield* X509Bundle.fromDer(a, Buffer.concat(ders)), bundle)
      assert.deepStrictEqual(yield* X509Bundle.fromPem(a, X509Bundle.toPem(bundle)), bundle)
      const commented = X509Bundle.toPem(bundle).replaceAll("-----BEGIN", "subject=CN = root\r\n\n-----BEGIN")
      assert.deepStrictEqual(yield* X509Bundle.fromPem(a, commented.replaceAll("\n", "\r\n")), bundle)
    })
  )

  itAtEpoch("duplicates are removed", () =>
    Effect.gen(function* () {
      const [first, second] = yield* two
      const bundle = yield* X509Bundle.fromDer(a, [first, second, first, first])
      assert.deepStrictEqual(bundle, yield* X509Bundle.fromDer(a, [first, second]))
    })
  )

  itAtEpoch("the generation is that of the content, whatever its order", () =>
    Effect.gen(function* () {
      const [first, second] = yield* two
      const generation = (...ders: ReadonlyArray<Uint8Array>) =>
        Effect.map(X509Bundle.fromDer(a, ders), (bundle) => bundle.generation)
      const both = yield* generation(first, second)
      assert.match(both, /^[0-9a-f]{64}$/)
      assert.strictEqual(yield* generation(second, first), both)
      assert.notStrictEqual(yield* generation(first), both)
      assert.notStrictEqual(yield* generation(first), yield* generation(second))
      assert.notStrictEqual(X509Bundle.empty(a).generation, both)
    })
  )

  itAtEpoch("what the caller does with its buffers later changes nothing", () =>
    Effect.gen(function* () {
      const [first] = yield* two
      const mine = Uint8Array.from(first)
      const bundle = yield* X509Bundle.fromDer(a, [mine])
      mine.fill(0)
      assert.deepStrictEqual(bundle.authorities, [first])
    })
  )

  itAtEpoch("an entry that cannot be read is left out and named, of DER and of PEM", () =>
    Effect.gen(function* () {
      const [first, second] = yield* two
      const good = yield* X509Bundle.fromDer(a, [first, second])
      const junk = Buffer.from("0500", "hex")
      const version1 = Buffer.from(first)
      version1.writeUInt8(0, version1.indexOf(Buffer.from("a003020102", "hex")) + 4)
      const ders: ReadonlyArray<readonly [Uint8Array | ReadonlyArray<Uint8Array>, string, RegExp]> = [
        [[first, junk, second], "certificate 2", /unexpected tag/],
        [[first, second, second.subarray(0, -1)], "certificate 3", /longer than what holds it/],
        [[version1, first, second], "certificate 1", /version is not 3/],
        [Buffer.concat([first, version1, second]), "certificate 2", /version is not 3/]
      ]
      for (const [der, entry, problem] of ders) {
        const bundle = yield* X509Bundle.fromDer(a, der)
        assert.deepStrictEqual(bundle.authorities, good.authorities)
        assert.strictEqual(bundle.generation, good.generation)
        assert.deepStrictEqual(
          bundle.leftOut?.map((left) => left.entry),
          [entry]
        )
        assert.match(bundle.leftOut?.[0]?.problem ?? "", problem)
        assert.match(
          X509Bundle.describeLeftOut(bundle) ?? "",
          /^bundle of a.test, of which the other authorities serve: /
        )
      }
      assert.isUndefined(good.leftOut)
      assert.isUndefined(X509Bundle.describeLeftOut(good))
      const text = X509Bundle.toPem(good).replace("MII", "AII")
      const fromText = yield* X509Bundle.fromPem(a, text)
      assert.deepStrictEqual(fromText.authorities, [second])
      assert.deepStrictEqual(
        fromText.leftOut?.map((left) => left.entry),
        ["certificate 1"]
      )
    })
  )

  itAtEpoch("no bundle is empty for what it left out, nor is one whose form is broken", () =>
    Effect.gen(function* () {
      const [first, second] = yield* two
      const pem = X509Bundle.toPem(yield* X509Bundle.fromDer(a, [first, second]))
      const junk = Buffer.from("0500", "hex")
      const ders: ReadonlyArray<Uint8Array | ReadonlyArray<Uint8Array>> = [
        [],
        new Uint8Array(0),
        junk,
        [junk, junk],
        [Buffer.concat([first, second])],
        Buffer.concat([first, second, junk]),
        Buffer.concat([first, second]).subarray(0, -1),
        Buffer.alloc(100)
      ]
      for (const der of ders) assert.match(refusal(X509Bundle.fromDer(a, der)), /^Malformed: bundle of a.test: /)
      const texts = [
        "",
        "\n",
        "nonsense",
        pem.slice(0, -10),
        pem.slice(10),
        pem.replace("-----END CERTIFICATE-----\n", ""),
        pem.replace("-----BEGIN CERTIFICATE-----\n", ""),
        pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE").replace("END CERTIFICATE", "END TRUSTED CERTIFICATE"),
        pem.replace("MII", "MI!"),
        pem.replaceAll("MII", "AII"),
        pem.replace(/\n/g, ""),
        `${pem}-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n`,
        `${pem}-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n`
      ]
      for (const text of texts) {
        assert.match(refusal(X509Bundle.fromPem(a, text)), /^Malformed: bundle of a.test: /, text.slice(0, 80))
      }
    })
  )

  itAtEpoch("what only OpenSSL, or only the gate's reader, can read is refused", () =>
    Effect.gen(function* () {
      const [first] = yield* two
      const altered = (pattern: string, offset: number, value: number) => {
        const der = Buffer.from(first)
        der.writeUInt8(value, der.indexOf(Buffer.from(pattern, "hex")) + offset)
        return der
      }
      const version1 = altered("a003020102", 4, 0)
      assert.isDefined(new X509Certificate(version1))
      assert.match(refusal(X509Bundle.fromDer(a, [version1])), /version is not 3/)
      // A key on a curve that is named by a NULL, with a content it cannot have.
      const strange = altered("06072a8648ce3d0201", 9, 0x05)
      assert.isTrue(Either.isRight(readCertificate(strange)))
      assert.match(refusal(X509Bundle.fromDer(a, [strange])), /OpenSSL cannot read it/)
    })
  )

  it("empty is made on purpose only", () => {
    const bundle = X509Bundle.empty(a)
    assert.deepStrictEqual(bundle.authorities, [])
    assert.strictEqual(X509Bundle.toPem(bundle), "")
    assert.match(bundle.generation, /^[0-9a-f]{64}$/)
  })
})

describe("X509BundleSet", () => {
  itAtEpoch("finds a bundle by its trust domain and no other", () =>
    Effect.gen(function* () {
      const [first, second] = yield* two
      const bundleA = yield* X509Bundle.fromDer(a, [first])
      const bundleB = yield* X509Bundle.fromDer(b, [second])
      const set = yield* X509BundleSet.make([bundleA, bundleB])
      assert.deepStrictEqual(X509BundleSet.get(set, a), Option.some(bundleA))
      assert.deepStrictEqual(set.bundles.get(b), bundleB)
      assert.isTrue(Option.isNone(X509BundleSet.get(set, TrustDomain.make("c.test"))))
      assert.deepStrictEqual(X509BundleSet.get(b)(set), Option.some(bundleB))
      assert.deepStrictEqual(yield* X509BundleSet.fromBundles(bundleA, bundleB), set)
      assert.deepStrictEqual(X509BundleSet.of(bundleA), yield* X509BundleSet.make([bundleA]))
      assert.deepStrictEqual(X509BundleSet.empty, yield* X509BundleSet.make([]))
    })
  )

  itAtEpoch("two bundles of one trust domain are an error, not a merge, even when they are equal", () =>
    Effect.gen(function* () {
      const [first, second] = yield* two
      const one = yield* X509Bundle.fromDer(a, [first])
      const other = yield* X509Bundle.fromDer(a, [second])
      assert.match(refusal(X509BundleSet.make([one, other])), /^Malformed: .*two for a.test$/)
      assert.match(refusal(X509BundleSet.fromBundles(one, one)), /^Malformed: /)
    })
  )

  itAtEpoch("the generation is that of all its bundles, whatever their order", () =>
    Effect.gen(function* () {
      const [first, second] = yield* two
      const generation = Effect.fnUntraced(function* (
        ...entries: ReadonlyArray<readonly [TrustDomain.TrustDomain, Uint8Array]>
      ) {
        const bundles = yield* Effect.forEach(entries, ([domain, der]) => X509Bundle.fromDer(domain, [der]))
        return (yield* X509BundleSet.make(bundles)).generation
      })
      const both = yield* generation([a, first], [b, second])
      assert.strictEqual(yield* generation([b, second], [a, first]), both)
      assert.notStrictEqual(yield* generation([a, second], [b, first]), both)
      assert.notStrictEqual(yield* generation([a, first]), both)
      assert.notStrictEqual(yield* generation([a, first]), yield* generation([b, first]))
    })
  )
})
