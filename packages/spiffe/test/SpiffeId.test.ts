import { InvalidSpiffeIdError, SpiffeId, TrustDomain } from "@agentweave/spiffe"
import { assert, describe, it } from "@effect/vitest"
import { Either, Schema } from "effect"

const ruleOf = (parsed: Either.Either<string, InvalidSpiffeIdError.InvalidSpiffeIdError>): string =>
  Either.match(parsed, { onLeft: (error) => error.rule, onRight: () => "valid" })

const longDomain = (length: number) => "d".repeat(length)
const longId = (length: number) => "spiffe://example.org/".padEnd(length, "p")

describe("SpiffeId.parse", () => {
  const rows: ReadonlyArray<readonly [text: string, rule: string, position?: number]> = [
    ["spiffe://example.org/a", "valid"],
    ["spiffe://example.org/a/b/c", "valid"],
    ["spiffe://example.org/A.b-c_9", "valid"],
    ["spiffe://example.org/...", "valid"],
    ["spiffe://example.org/.a", "valid"],
    ["spiffe://1.2_3-4/x", "valid"],
    ["spiffe://x/y", "valid"],
    [`spiffe://${longDomain(255)}/x`, "valid"],
    [longId(2048), "valid"],
    ["", "Empty"],
    [longId(2049), "TooLong"],
    ["example.org/a", "Scheme", 0],
    ["spiffe:/example.org/a", "Scheme", 0],
    ["SPIFFE://example.org/a", "Scheme", 0],
    ["Spiffe://example.org/a", "Scheme", 0],
    [" spiffe://example.org/a", "Scheme", 0],
    ["http://example.org/a", "Scheme", 0],
    ["spiffe://", "TrustDomainEmpty", 9],
    ["spiffe:///a", "TrustDomainEmpty", 9],
    [`spiffe://${longDomain(256)}/x`, "TrustDomainTooLong"],
    ["spiffe://Example.org/a", "TrustDomainCharacter", 9],
    ["spiffe://example.org:443/a", "TrustDomainCharacter", 20],
    ["spiffe://user@example.org/a", "TrustDomainCharacter", 13],
    ["spiffe://ex%61mple.org/a", "TrustDomainCharacter", 11],
    ["spiffe://exämple.org/a", "TrustDomainCharacter", 11],
    ["spiffe://[::1]/a", "TrustDomainCharacter", 9],
    ["spiffe://example.org?a", "TrustDomainCharacter", 20],
    ["spiffe://example.org#a", "TrustDomainCharacter", 20],
    ["spiffe://example.org\\a", "TrustDomainCharacter", 20],
    ["spiffe://example.org", "PathMissing"],
    ["spiffe://example.org/", "PathTrailingSlash", 20],
    ["spiffe://example.org/a/", "PathTrailingSlash", 22],
    ["spiffe://example.org//a", "PathSegmentEmpty", 21],
    ["spiffe://example.org/a//b", "PathSegmentEmpty", 23],
    ["spiffe://example.org/.", "PathSegmentDot", 21],
    ["spiffe://example.org/..", "PathSegmentDot", 21],
    ["spiffe://example.org/a/../b", "PathSegmentDot", 23],
    ["spiffe://example.org/a/./b", "PathSegmentDot", 23],
    ["spiffe://example.org/%78", "PathCharacter", 21],
    ["spiffe://example.org/a?b=c", "PathCharacter", 22],
    ["spiffe://example.org/a#b", "PathCharacter", 22],
    ["spiffe://example.org/a b", "PathCharacter", 22],
    ["spiffe://example.org/a\n", "PathCharacter", 22],
    ["spiffe://example.org/a\0.evil", "PathCharacter", 22],
    ["spiffe://example.org/é", "PathCharacter", 21],
    ["spiffe://example.org/a:b", "PathCharacter", 22],
    ["spiffe://example.org/a@b", "PathCharacter", 22],
    ["spiffe://example.org/a~b", "PathCharacter", 22]
  ]
  for (const [text, rule, position] of rows) {
    it(`${JSON.stringify(text.slice(0, 40))} (${text.length}): ${rule}`, () => {
      const parsed = SpiffeId.parse(text)
      assert.strictEqual(ruleOf(parsed), rule)
      if (Either.isLeft(parsed)) {
        assert.strictEqual(parsed.left.position, position)
        assert.isFalse(parsed.left.isRetryable)
        assert.include(parsed.left.message, rule)
        assert.isAtMost(parsed.left.input.length, 256)
      }
      assert.strictEqual(SpiffeId.isSpiffeId(text), rule === "valid")
      assert.strictEqual(Either.isRight(Schema.decodeUnknownEither(SpiffeId.SpiffeId)(text)), rule === "valid")
    })
  }

  it("gives back the text itself: nothing is normalised", () => {
    const text = "spiffe://example.org/A/b"
    assert.strictEqual(Either.getOrThrow(SpiffeId.parse(text)), text)
    assert.strictEqual(Schema.encodeSync(SpiffeId.SpiffeId)(SpiffeId.make(text)), text)
  })

  it("trust domain and path together are the ID", () => {
    const id = SpiffeId.make("spiffe://example.org/a/b")
    assert.strictEqual(SpiffeId.trustDomain(id), TrustDomain.make("example.org"))
    assert.strictEqual(SpiffeId.path(id), "/a/b")
  })

  it("make throws the typed error", () => {
    assert.throws(() => SpiffeId.make("nonsense"), InvalidSpiffeIdError.InvalidSpiffeIdError)
  })

  it("what is not a string is no ID", () => {
    for (const value of [undefined, null, 7, {}, []]) assert.isFalse(SpiffeId.isSpiffeId(value))
  })
})

describe("TrustDomain.parse", () => {
  const rows: ReadonlyArray<readonly [text: string, rule: string]> = [
    ["example.org", "valid"],
    ["a", "valid"],
    ["a-b_c.9", "valid"],
    [longDomain(255), "valid"],
    ["", "TrustDomainEmpty"],
    [longDomain(256), "TrustDomainTooLong"],
    ["Example.org", "TrustDomainCharacter"],
    ["example.org/", "TrustDomainCharacter"],
    ["spiffe://example.org", "TrustDomainCharacter"],
    [" example.org", "TrustDomainCharacter"],
    ["example.org\n", "TrustDomainCharacter"],
    ["exämple.org", "TrustDomainCharacter"],
    ["example.org:1", "TrustDomainCharacter"]
  ]
  for (const [text, rule] of rows) {
    it(`${JSON.stringify(text.slice(0, 40))} (${text.length}): ${rule}`, () => {
      assert.strictEqual(ruleOf(TrustDomain.parse(text)), rule)
      assert.strictEqual(TrustDomain.isTrustDomain(text), rule === "valid")
      assert.strictEqual(Either.isRight(Schema.decodeUnknownEither(TrustDomain.TrustDomain)(text)), rule === "valid")
    })
  }

  it("make throws the typed error", () => {
    assert.throws(() => TrustDomain.make("Nonsense"), InvalidSpiffeIdError.InvalidSpiffeIdError)
  })
})
