import { Buffer } from "node:buffer"
import {
  IdentityError,
  InvalidSpiffeIdError,
  PeerVerificationError,
  PeerVerifier,
  SpiffeId,
  TrustDomain,
  X509Bundle,
  X509BundleSet,
  X509Svid
} from "@agentweave/spiffe"
import { afterAll, assert, beforeAll, describe } from "@effect/vitest"
import { Effect, Either, Redacted } from "effect"
import { anyOfExample, itAtEpoch, makeShared } from "./support/gate.js"
import { makeRandom, mutate } from "./support/mutate.js"

/** Every answer is a value or the typed error; anything thrown fails the test by itself. */
const assertTyped = <A, E>(result: Either.Either<A, E>, error: { new (...args: never): E }): boolean => {
  if (Either.isLeft(result) && !(result.left instanceof error))
    assert.fail(`expected ${error.name}, got ${result.left}`)
  return Either.isRight(result)
}

const shared = makeShared({ intermediates: 1 })

/** The grammar once more, by other means. */
const domainPattern = /^[a-z0-9._-]{1,255}$/
const idPattern = /^spiffe:\/\/[a-z0-9._-]{1,255}(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)+$/

describe("never a throw, always a value or a typed error", () => {
  // A hundred thousand expected errors, and nobody looks at where they come from.
  const { stackTraceLimit } = Error
  beforeAll(() => {
    Error.stackTraceLimit = 0
  })
  afterAll(() => {
    Error.stackTraceLimit = stackTraceLimit
  })

  itAtEpoch("88,000 random and mutated texts as SPIFFE IDs and trust domains, against a pattern of the grammar", () =>
    Effect.sync(() => {
      const random = makeRandom(1)
      const seeds = ["spiffe://example.org/a/b", "spiffe://a.b-c_d/x.y/Z", "example.org", "spiffe://e/..x/.."] as const
      const accepted = { ids: 0, domains: 0 }
      for (let i = 0; i < 88_000; i++) {
        const bytes = i % 3 === 0 ? random.bytes(random.below(40)) : mutate(random, Buffer.from(random.pick(seeds)))
        const text = bytes.toString(i % 2 === 0 ? "latin1" : "utf8")
        const id = assertTyped(SpiffeId.parse(text), InvalidSpiffeIdError.InvalidSpiffeIdError)
        const domain = assertTyped(TrustDomain.parse(text), InvalidSpiffeIdError.InvalidSpiffeIdError)
        if (id !== idPattern.test(text) || domain !== domainPattern.test(text)) assert.fail(JSON.stringify(text))
        if (id) accepted.ids += 1
        if (domain) accepted.domains += 1
      }
      assert.isAbove(accepted.ids, 1000)
      assert.isAbove(accepted.domains, 1000)
    })
  )

  itAtEpoch("8,000 random and mutated chains through the gate: none that was changed is accepted", () =>
    Effect.gen(function* () {
      const { bundle, issueRaw } = yield* shared
      const { certificates } = yield* issueRaw()
      const [leaf, intermediate = leaf] = certificates
      const random = makeRandom(2)
      const bundles = X509BundleSet.of(bundle)
      const verifier = PeerVerifier.make()
      const verify = (chain: ReadonlyArray<Uint8Array>) =>
        verifier.verify({ chain, bundles, matcher: anyOfExample, purpose: "ServerAuth", now: 0 })
      assert.isTrue(Either.isRight(verify(certificates)))
      const reasons = new Set<string>()
      for (let i = 0; i < 8_000; i++) {
        const first = i % 10 === 0 ? random.bytes(random.below(200)) : i % 3 === 0 ? leaf : mutate(random, leaf)
        const second = i % 3 === 0 ? mutate(random, intermediate) : intermediate
        const result = verify([first, second])
        const isSame = Buffer.compare(first, leaf) === 0 && Buffer.compare(second, intermediate) === 0
        if (assertTyped(result, PeerVerificationError.PeerVerificationError) !== isSame) {
          assert.fail(`${Buffer.from(first).toString("hex")} ${Buffer.from(second).toString("hex")}`)
        }
        if (Either.isLeft(result)) {
          if (result.left.reason === "VerifierFault") assert.fail(result.left.message)
          reasons.add(result.left.reason)
        }
      }
      assert.includeMembers(
        [...reasons],
        ["UntrustedChain", "InvalidChain", "InvalidLeaf", "InvalidSpiffeId", "NoBundle"]
      )
    })
  )

  itAtEpoch("4,000 random and mutated certificates, keys and PEM texts as bundles and SVIDs", () =>
    Effect.gen(function* () {
      const { bundle, issueRaw, trustDomain } = yield* shared
      const { certificates, certificatesPem, privateKey, privateKeyPem } = yield* issueRaw()
      const der = Buffer.concat(certificates)
      const key = Redacted.value(privateKey).export({ type: "pkcs8", format: "der" })
      const keyPem = Redacted.value(privateKeyPem)
      const bundlePem = X509Bundle.toPem(bundle)
      const random = makeRandom(3)
      const changed = (bytes: Uint8Array) =>
        random.below(10) === 0 ? random.bytes(random.below(300)) : mutate(random, bytes)
      const changedText = (text: string) => changed(Buffer.from(text)).toString("latin1")
      for (let i = 0; i < 1_000; i++) {
        const which = random.below(3)
        assertTyped(X509Bundle.fromDer(trustDomain, changed(der)), IdentityError.IdentityError)
        assertTyped(X509Bundle.fromPem(trustDomain, changedText(bundlePem)), IdentityError.IdentityError)
        assertTyped(
          X509Svid.fromDer({
            certificates: which < 2 ? changed(der) : der,
            privateKey: which > 0 ? changed(key) : Uint8Array.from(key)
          }),
          IdentityError.IdentityError
        )
        assertTyped(
          X509Svid.fromPem({
            certificates: which < 2 ? changedText(certificatesPem) : certificatesPem,
            privateKey: which > 0 ? changedText(keyPem) : keyPem
          }),
          IdentityError.IdentityError
        )
      }
    })
  )
})
