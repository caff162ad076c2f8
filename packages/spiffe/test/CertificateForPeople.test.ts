import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Certificate, PeerVerifier, X509Bundle, X509Svid } from "@agentweave/spiffe"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Either } from "effect"
import { inputOf, makeShared } from "./support/gate.js"

const shared = makeShared({ intermediates: 1 })

const dnsNames = ([leaf]: ReadonlyArray<Certificate.X509Certificate>) => {
  const { SubjectAlternativeNameExtension } = Certificate.library()
  const names = leaf?.getExtension(SubjectAlternativeNameExtension)?.names.items ?? []
  return names.filter(({ type }) => type === "dns").map(({ value }) => value)
}

describe("certificates for people, as values of @peculiar/x509", () => {
  it.effect("of a verified peer: a handler reads a DNS name of the leaf", () =>
    Effect.gen(function* () {
      const authority = yield* shared
      const { certificates } = yield* authority.issueRaw({ dnsNames: ["api.internal"] })
      const input = inputOf({ certificates, bundle: authority.bundle }, yield* Clock.currentTimeMillis)
      const peer = yield* PeerVerifier.make().verify(input)
      const chain = yield* PeerVerifier.x509Certificates(peer)
      assert.deepStrictEqual(dnsNames(chain), ["api.internal"])
      assert.strictEqual(chain.length, 2)
      assert.strictEqual(chain[0]?.serialNumber.toUpperCase(), peer.serialNumber)
    })
  )

  it.effect("of our own SVID and of a bundle", () =>
    Effect.gen(function* () {
      const authority = yield* shared
      const svid = yield* authority.issue({ dnsNames: ["web.internal"] })
      assert.deepStrictEqual(dnsNames(yield* X509Svid.x509Certificates(svid)), ["web.internal"])
      const [root] = yield* X509Bundle.x509Certificates(authority.bundle)
      assert.strictEqual(root?.subject.replaceAll(", ", ","), authority.roots[0].subject)
    })
  )

  it("one that cannot be read is a typed error", () => {
    const read = Certificate.fromDer(Uint8Array.of(0x30, 0))
    assert.strictEqual(Either.isLeft(read) ? read.left.reason : "read", "Malformed")
  })

  it("the library is not loaded by the package, nor by a verification", () => {
    const program = `
      import { createRequire } from "node:module"
      import { PeerMatcher, PeerVerifier, SpiffeId, TrustDomain, X509Bundle, X509BundleSet, Certificate } from "@agentweave/spiffe"
      import { Either } from "effect"
      const { authority, leaves } = await import("./test/support/openssl.ts")
      const domain = TrustDomain.make("example.org")
      const bundle = Either.getOrThrow(X509Bundle.fromPem(domain, authority))
      const chain = Either.getOrThrow(X509Bundle.fromPem(domain, leaves.sha256)).authorities
      const matcher = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/workload"))
      const input = { chain, bundles: X509BundleSet.of(bundle), matcher, purpose: "ServerAuth", now: Date.UTC(2027, 0) }
      const peer = Either.getOrThrow(PeerVerifier.make().verify(input))
      const isLoaded = () => Object.keys(createRequire(import.meta.url).cache).some((path) => path.includes("peculiar"))
      const before = isLoaded()
      Either.getOrThrow(PeerVerifier.x509Certificates(peer))
      console.log(before, isLoaded())
    `
    const child = spawnSync(
      process.execPath,
      ["--conditions=@agentweave/source", "--import", "tsx", "--input-type=module", "--eval", program],
      { cwd: fileURLToPath(new URL("..", import.meta.url)), encoding: "utf8" }
    )
    assert.strictEqual(child.stdout.trim(), "false true", child.stderr)
  })
})
