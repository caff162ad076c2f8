import { Buffer } from "node:buffer"
import { SpiffeBundle, TrustDomain } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Either } from "effect"
import * as fc from "fast-check"

const domain = TrustDomain.make("example.org")

const problem = (text: string): string =>
  Either.match(SpiffeBundle.parse(domain, text), {
    onLeft: (error) => `${error.reason}: ${error.description}`,
    onRight: () => "accepted"
  })

const authorities = Effect.gen(function* () {
  const first = yield* DevAuthority.make({ trustDomain: "example.org" })
  const both = yield* first.rotateRoot()
  return { bundle: both.bundle, ders: both.bundle.authorities }
})

const jwk = (der: Uint8Array | undefined, more: object = {}) => ({
  kty: "EC",
  use: "x509-svid",
  x5c: [Buffer.from(der ?? []).toString("base64")],
  ...more
})

const document = (keys: ReadonlyArray<unknown>, more: object = {}) => JSON.stringify({ keys, ...more })

describe("SpiffeBundle.parse", () => {
  it.effect("reads authorities, sequence and refresh hint", () =>
    Effect.gen(function* () {
      const { bundle, ders } = yield* authorities
      const read = yield* SpiffeBundle.parse(
        domain,
        document(
          ders.map((der) => jwk(der)),
          { spiffe_sequence: 12, spiffe_refresh_hint: 300 }
        )
      )
      assert.strictEqual(read.trustDomain, domain)
      assert.strictEqual(read.x509Bundle.generation, bundle.generation)
      assert.strictEqual(read.sequence, 12n)
      assert.deepStrictEqual(read.refreshHint, Duration.minutes(5))
      assert.strictEqual(read.ignoredKeys, 0)
    })
  )

  it("keeps 64 bits of a sequence number and more", () => {
    for (const digits of ["9007199254740993", "18446744073709551615", "340282366920938463463374607431768211456"]) {
      const read = Either.getOrThrow(SpiffeBundle.parse(domain, `{"spiffe_sequence": ${digits}, "keys": []}`))
      assert.strictEqual(read.sequence, BigInt(digits))
    }
  })

  it("a member of that name further inside is not the sequence number", () => {
    const nested = `{"spiffe_sequence": 7, "other": {"spiffe_sequence": 9}, "keys": [{"spiffe_sequence": 11}]}`
    assert.strictEqual(Either.getOrThrow(SpiffeBundle.parse(domain, nested)).sequence, 7n)
  })

  it("an absent or null sequence and hint are none", () => {
    for (const more of [{}, { spiffe_sequence: null, spiffe_refresh_hint: null }]) {
      const read = Either.getOrThrow(SpiffeBundle.parse(domain, document([], more)))
      assert.strictEqual(read.sequence, undefined)
      assert.strictEqual(read.refreshHint, undefined)
    }
  })

  it("an empty key set is an empty bundle: the trust domain revoked everything", () => {
    const read = Either.getOrThrow(SpiffeBundle.parse(domain, document([])))
    assert.deepStrictEqual(read.x509Bundle.authorities, [])
  })

  it.effect("passes over keys of another use, unknown types and keys without certificate", () =>
    Effect.gen(function* () {
      const { ders } = yield* authorities
      const passedOver = [
        { kty: "EC", use: "jwt-svid", kid: "k", crv: "P-256", x: "AA", y: "AA" },
        { kty: "EC", use: "X509-SVID", x5c: [Buffer.from(ders[0] ?? []).toString("base64")] },
        { kty: "EC", x5c: [Buffer.from(ders[0] ?? []).toString("base64")] },
        jwk(ders[0], { kty: "future" }),
        jwk(ders[0], { kty: "oct" }),
        jwk(ders[0], { kty: undefined }),
        jwk(ders[0], { x5c: undefined }),
        jwk(ders[0], { x5c: [] })
      ]
      const none = yield* SpiffeBundle.parse(domain, document(passedOver))
      assert.deepStrictEqual(none.x509Bundle.authorities, [])
      assert.strictEqual(none.ignoredKeys, passedOver.length)
      const one = yield* SpiffeBundle.parse(domain, document([...passedOver, jwk(ders[1])]))
      assert.deepStrictEqual(one.x509Bundle.authorities.map(Buffer.from), [Buffer.from(ders[1] ?? [])])
    })
  )

  it.effect("only the first certificate of a key counts", () =>
    Effect.gen(function* () {
      const { ders } = yield* authorities
      const x5c = ders.map((der) => Buffer.from(der).toString("base64"))
      const read = yield* SpiffeBundle.parse(domain, document([jwk(ders[0], { x5c })]))
      assert.deepStrictEqual(read.x509Bundle.authorities.map(Buffer.from), [Buffer.from(ders[0] ?? [])])
    })
  )

  it.effect("the key a JWK states is its certificate's key, or it is left out", () =>
    Effect.gen(function* () {
      const { ders } = yield* authorities
      const printed: { readonly keys: ReadonlyArray<Record<string, unknown>> } = JSON.parse(
        SpiffeBundle.toJson(
          SpiffeBundle.make({
            x509Bundle: (yield* SpiffeBundle.parse(domain, document(ders.map((der) => jwk(der))))).x509Bundle
          })
        )
      )
      const [a, b] = printed.keys
      assert.strictEqual(problem(document([a, b])), "accepted")
      assert.match(
        problem(document([{ ...a, x: b?.["x"], y: b?.["y"] }])),
        /Malformed: .*keys\[0\]: expected the key of/
      )
      assert.match(problem(document([{ ...a, x: "junk" }])), /keys\[0\]: expected the key of its certificate/)
      assert.match(problem(document([{ ...a, x5c: ["AAAA"] }])), /bundle of example.org: keys\[0\]: x5c\[0\]: /)
    })
  )

  it.effect("a key that cannot be used is left out and named; without any other the document is refused", () =>
    Effect.gen(function* () {
      const { ders } = yield* authorities
      const cut = Buffer.from(ders[1] ?? [])
        .subarray(0, 100)
        .toString("base64")
      const bad: ReadonlyArray<readonly [unknown, RegExp]> = [
        [jwk(ders[1], { x5c: [cut] }), /^x5c\[0\]: .*longer than what holds it/],
        [jwk(ders[1], { x5c: ["not base64!"] }), /^x5c\[0\]: expected base64/],
        [jwk(ders[1], { x5c: [""] }), /^x5c\[0\]: /],
        [jwk(ders[1], { x5c: [7] }), /^x5c\[0\]: expected base64, got a number/],
        [jwk(ders[1], { x5c: "AAAA" }), /^x5c: expected an array, got a string/],
        ["AAAA", /^expected an object, got a string/]
      ]
      for (const [key, expected] of bad) {
        const { x509Bundle } = yield* SpiffeBundle.parse(domain, document([jwk(ders[0]), key]))
        assert.deepStrictEqual(x509Bundle.authorities.map(Buffer.from), [Buffer.from(ders[0] ?? [])])
        assert.deepStrictEqual(
          x509Bundle.leftOut?.map(({ entry }) => entry),
          ["keys[1]"]
        )
        assert.match(x509Bundle.leftOut?.[0]?.problem ?? "", expected)
        assert.match(problem(document([key])), /^Malformed: SPIFFE bundle of example.org: keys\[0\]: /)
      }
    })
  )

  it("refuses what is not a bundle, and says what was expected", () => {
    const refused: ReadonlyArray<readonly [string, RegExp]> = [
      ["", /expected JSON/],
      ["-----BEGIN CERTIFICATE-----", /expected JSON/],
      [`{"keys": []`, /expected JSON/],
      ["[]", /expected a JSON object, got an array|keys: expected an array/],
      ["null", /expected a JSON object, got null/],
      ["{}", /keys: expected an array, got none/],
      [`{"keys": {}}`, /keys: expected an array, got a object/],
      [`{"keys": [], "spiffe_sequence": "7"}`, /spiffe_sequence: expected an integer/],
      [`{"keys": [], "spiffe_sequence": -1}`, /spiffe_sequence: expected an integer/],
      [`{"keys": [], "spiffe_sequence": 1.5}`, /spiffe_sequence: expected an integer/],
      [`{"keys": [], "spiffe_sequence": 1e3}`, /spiffe_sequence: expected an integer/],
      [`{"keys": [], "spiffe_sequence": ${"9".repeat(41)}}`, /spiffe_sequence: expected an integer/],
      [`{"keys": [], "spiffe_refresh_hint": "300"}`, /spiffe_refresh_hint: expected a whole number/],
      [`{"keys": [], "spiffe_refresh_hint": 0.5}`, /spiffe_refresh_hint: expected a whole number/],
      [`{"keys": [], "spiffe_refresh_hint": -300}`, /spiffe_refresh_hint: expected a whole number/]
    ]
    for (const [text, expected] of refused) assert.match(problem(text), expected, text)
  })

  it("refuses names that occur twice, however they are spelled", () => {
    const twice = [
      `{"keys": [], "keys": []}`,
      `{"keys": [], "spiffe_sequence": 1, "spiffe_sequence": 2}`,
      `{"keys": [], "spiffe\\u005fsequence": 1, "spiffe_sequence": 2}`,
      `{"keys": [{"kty": "EC", "use": "jwt-svid", "use": "x509-svid"}]}`
    ]
    for (const text of twice) assert.match(problem(text), /expected unique names .* twice/, text)
    assert.strictEqual(problem(`{"keys": [{"use": "a"}, {"use": "a"}], "other": ["a", "a", {"keys": 1}]}`), "accepted")
    assert.strictEqual(problem(`{"x": "\\"keys\\": 1, }{][", "keys": []}`), "accepted")
  })

  it("any text is an answer, never an exception", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.jsonValue().map((keys) => JSON.stringify({ keys, spiffe_sequence: keys })),
          fc.array(fc.jsonValue()).map((x5c) => document([jwk(undefined, { x5c })]))
        ),
        (text) => {
          const read = SpiffeBundle.parse(domain, text)
          return Either.isRight(read) || read.left.reason === "Malformed"
        }
      ),
      { numRuns: 300 }
    )
  })
})

describe("SpiffeBundle.toJson", () => {
  it.effect("prints what it reads, for every kind of key", () =>
    Effect.gen(function* () {
      for (const keyAlgorithm of ["P-256", "P-384", "Ed25519", "RSA-2048"] as const) {
        const { bundle } = yield* DevAuthority.make({ trustDomain: "example.org", keyAlgorithm })
        const sequence = 18446744073709551615n
        const text = SpiffeBundle.toJson(
          SpiffeBundle.make({ x509Bundle: bundle, sequence, refreshHint: "90500 millis" })
        )
        const read = yield* SpiffeBundle.parse(domain, text)
        assert.strictEqual(read.x509Bundle.generation, bundle.generation)
        assert.strictEqual(read.sequence, sequence)
        assert.deepStrictEqual(read.refreshHint, Duration.seconds(90))
        const [key] = JSON.parse(text).keys
        const members = { RSA: ["e", "n"], EC: ["crv", "x", "y"], OKP: ["crv", "x"] }[String(key.kty)]
        assert.deepStrictEqual(Object.keys(key).sort(), [...(members ?? []), "kty", "use", "x5c"].sort())
      }
    })
  )

  it("an empty bundle prints an empty key set", () => {
    const empty = Either.getOrThrow(SpiffeBundle.parse(domain, `{"keys": []}`))
    assert.deepStrictEqual(JSON.parse(SpiffeBundle.toJson(empty)), { keys: [] })
  })
})
