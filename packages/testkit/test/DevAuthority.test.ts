import { createPublicKey, X509Certificate } from "node:crypto"
import { inspect } from "node:util"
import { IdentityProvider, X509Bundle, X509Svid } from "@agentweave/spiffe"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import * as Credentials from "@agentweave/testkit/Credentials"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as KeyPair from "@agentweave/testkit/KeyPair"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Either, Redacted, TestClock } from "effect"

const read = (certificate: Uint8Array): X509Certificate => new X509Certificate(certificate)

/** Each certificate is issued and signed by the next, the last one by itself. */
const expectSigned = (chain: ReadonlyArray<Uint8Array>) => {
  chain.map(read).forEach((certificate, index, all) => {
    const issuer = all[index + 1] ?? certificate
    expect(certificate.checkIssued(issuer)).toBe(true)
    expect(certificate.verify(issuer.publicKey)).toBe(true)
  })
}

const day = 86_400_000

describe("DevAuthority", () => {
  it.effect("issues SVIDs whose chains end in the bundle, with any number of intermediates", () =>
    Effect.gen(function* () {
      for (const intermediates of [0, 1, 3]) {
        const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates })
        const svid = yield* authority.issue({ path: "/api" })
        expect(svid.spiffeId).toBe("spiffe://example.org/api")
        expect(svid.certificates.length).toBe(1 + intermediates)
        expectSigned([...svid.certificates, ...authority.bundle.authorities])
        const leaf = read(svid.certificates[0])
        expect(leaf.subjectAltName).toBe("URI:spiffe://example.org/api")
        expect(leaf.ca).toBe(false)
        expect(leaf.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"])
        expect(createPublicKey(Redacted.value(svid.privateKey)).equals(leaf.publicKey)).toBe(true)
        expect(svid.certificates.slice(1).every((certificate) => read(certificate).ca)).toBe(true)
      }
    })
  )

  it.effect("dates certificates by Effect's clock, at most a minute back and in whole seconds", () =>
    Effect.gen(function* () {
      const now = Date.UTC(2031, 5, 15, 12, 0, 0)
      yield* TestClock.setTime(now + 999)
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      const root = read(authority.roots[0].certificate)
      expect(Date.parse(root.validFrom)).toBe(now - 60_000)
      expect(Date.parse(root.validTo)).toBe(now + 365 * day)
      expect(yield* authority.issue()).toMatchObject({ notBefore: now - 60_000, notAfter: now + 3_600_000 })
      yield* TestClock.adjust("10 minutes")
      const later = yield* authority.issue({ ttl: "5 minutes" })
      expect(later).toMatchObject({ notBefore: now + 570_000, notAfter: now + 900_000 })
      const exact = yield* authority.issue({ validity: { notBefore: now, notAfter: now + 1000 } })
      expect(exact).toMatchObject({ notBefore: now, notAfter: now + 1000 })
    })
  )

  it.effect("dates correctly at the epoch and past 2050, where X.509 changes its form of time", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", rootTtl: "36500 days" })
      expect(yield* authority.issue()).toMatchObject({ notBefore: -60_000, notAfter: 3_600_000 })
      expect(Date.parse(read(authority.roots[0].certificate).validTo)).toBe(36_500 * day)
    })
  )

  it.effect("speaks every acceptable key algorithm, for the CA and for the leaf", () =>
    Effect.gen(function* () {
      for (const keyAlgorithm of ["P-256", "P-384", "P-521", "Ed25519", "RSA-2048"] as const) {
        const authority = yield* DevAuthority.make({ trustDomain: "example.org", keyAlgorithm })
        const svid = yield* authority.issue()
        expectSigned([...svid.certificates, authority.roots[0].certificate])
        const mixed = yield* authority.issue({ keyAlgorithm: "P-256" })
        expect(read(mixed.certificates[0]).publicKey.asymmetricKeyDetails).toEqual({ namedCurve: "prime256v1" })
      }
    })
  )

  it.effect("rotates its root: the new one signs, the old one stays in the bundle until it is retired", () =>
    Effect.gen(function* () {
      const before = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      const during = yield* before.rotateRoot()
      const after = yield* during.retireOldRoots
      const [first, second] = [before.roots[0], during.roots[0]].map((root) => root.certificate)
      expect(before.bundle.authorities).toEqual([first])
      expect(during.bundle.authorities).toEqual([second, first])
      expect(after.bundle.authorities).toEqual([second])
      expect(new Set([before, during, after].map(({ bundle }) => bundle.generation)).size).toBe(3)
      expectSigned([...(yield* before.issue()).certificates, before.roots[0].certificate])
      expectSigned([...(yield* during.issue()).certificates, during.roots[0].certificate])
      expectSigned([...(yield* after.issue()).certificates, during.roots[0].certificate])
      expect((yield* after.issue()).certificates.length).toBe(2)
    })
  )

  it.effect("takes another root into its bundle, and another CA as its signer", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const extra = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org" })
      const wider = yield* authority.addRoot(extra)
      expect(wider.bundle.authorities).toEqual([authority.roots[0].certificate, extra.certificate])
      expectSigned([...(yield* wider.issue()).certificates, authority.roots[0].certificate])
      expectSigned([...(yield* wider.withIssuer(extra).issue()).certificates, extra.certificate])
    })
  )

  it.effect("gives a workload its SVID and the bundles of all it federates with, as a value and as a layer", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Effect.all([
        DevAuthority.make({ trustDomain: "ours.test" }),
        DevAuthority.make({ trustDomain: "theirs.test" })
      ])
      const context = yield* ours.context({ path: "/api", hint: "internal", federatesWith: [theirs] })
      expect(context.svid).toMatchObject({ spiffeId: ours.id("/api"), hint: "internal" })
      expect(Array.from(context.bundles.bundles.values())).toEqual([ours.bundle, theirs.bundle])
      const layer = DevAuthority.layerIdentity(ours, { path: "/web", federatesWith: [theirs] })
      const provided = yield* Effect.provide(
        Effect.flatMap(IdentityProvider.IdentityProvider, (identity) => identity.x509Context),
        layer
      )
      expect(provided.svid.spiffeId).toBe("spiffe://ours.test/web")
      expect(provided.bundles).toEqual(context.bundles)
      expect(Either.isLeft(DevAuthority.bundles([ours, ours]))).toBe(true)
    })
  )

  it.effect("refuses what is no trust domain, no proper SVID, or no certificate at all, each with its error", () =>
    Effect.gen(function* () {
      const domain = yield* Effect.flip(DevAuthority.make({ trustDomain: "Example.org" }))
      expect(domain._tag).toBe("InvalidSpiffeIdError")
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const improper = yield* Effect.flip(Effect.asVoid(authority.issue({ path: "/api/" })))
      expect(improper).toMatchObject({ _tag: "IdentityError", reason: "InvalidSvid" })
      const unwritable = yield* Effect.flip(authority.issueRaw({ subject: "WORKLOAD=web" }).pipe(Effect.asVoid))
      expect(unwritable).toMatchObject({ _tag: "MintError", reason: "InvalidProfile" })
      expect(unwritable.message).toContain("WORKLOAD=web")
      const signer = yield* KeyPair.make("secp256k1")
      for (const profile of [
        { serialNumber: "7f0" },
        { subjectKeyIdentifier: "a key" },
        { extendedKeyUsage: ["servers"] },
        { basicConstraints: { ca: true, pathLength: -1 } },
        { validity: { notBefore: 0, notAfter: Number.NaN } },
        { keyPair: signer }
      ]) {
        const refused = yield* Effect.flip(
          Effect.asVoid(CertificateAuthority.makeRoot({ trustDomain: "example.org", ...profile }))
        )
        expect(refused._tag).toBe("MintError")
      }
    })
  )

  it.effect("prints without a key, in every form", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const credentials = yield* authority.issueRaw()
      const secret = Redacted.value(credentials.privateKeyPem)
      const printed = [authority, credentials, credentials.keyPair].flatMap((value) => [
        JSON.stringify(value),
        inspect(value, { depth: 10, showHidden: true }),
        String(value)
      ])
      expect(secret).toMatch(/^-----BEGIN PRIVATE KEY-----/)
      const body = secret.split("\n")[1] ?? ""
      expect(body.length).toBe(64)
      for (const text of printed) {
        expect(text).not.toContain("PRIVATE KEY")
        expect(text).not.toContain(body)
      }
    })
  )

  it.effect("hands out credentials as TLS takes them", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      const credentials = yield* authority.issueRaw({ path: "/api" })
      const svid = yield* X509Svid.fromPem({
        certificates: credentials.certificatesPem,
        privateKey: credentials.privateKeyPem
      })
      expect(svid.certificates).toEqual(credentials.certificates)
      expect(
        yield* X509Bundle.fromPem(authority.trustDomain, Credentials.toPem(authority.roots[0].certificate))
      ).toEqual(authority.bundle)
    })
  )

  it.effect("loads its certificate library without leaving a Reflect polyfill behind", () =>
    Effect.gen(function* () {
      yield* DevAuthority.make({ trustDomain: "example.org" })
      expect(["getMetadata", "getOwnMetadata", "defineMetadata"].filter((name) => Reflect.has(Reflect, name))).toEqual(
        []
      )
    })
  )
})

describe("CertificateAuthority", () => {
  it.effect("makes an impostor of a root: same name, same key identifier, another key", () =>
    Effect.gen(function* () {
      const real = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org" })
      const fake = yield* CertificateAuthority.makeImpostor(real)
      const leaf = read((yield* CertificateAuthority.issue(fake)).certificates[0])
      // By name and identifier the real root issued it; only the signature tells.
      expect(leaf.checkIssued(read(real.certificate))).toBe(true)
      expect(leaf.verify(read(real.certificate).publicKey)).toBe(false)
      expect(leaf.verify(read(fake.certificate).publicKey)).toBe(true)
    })
  )

  it.effect("cross-signs: one key and name, certified by another root", () =>
    Effect.gen(function* () {
      const [old, next] = yield* Effect.replicateEffect(
        CertificateAuthority.makeRoot({ trustDomain: "example.org" }),
        2
      )
      if (old === undefined || next === undefined) return
      const cross = yield* CertificateAuthority.crossSign(old, next)
      expect(read(cross.certificate).subject).toBe(read(next.certificate).subject)
      const { certificates } = yield* CertificateAuthority.issue(cross)
      expect(certificates.length).toBe(2)
      expectSigned([...certificates, old.certificate])
      expectSigned([certificates[0], next.certificate])
    })
  )

  it.effect("makes loops of CAs in which no certificate is self-signed", () =>
    Effect.gen(function* () {
      for (const size of [2, 4]) {
        const loop = yield* CertificateAuthority.makeLoop({ trustDomain: "example.org", size })
        const [leaf, ...ring] = (yield* CertificateAuthority.issue(loop)).certificates.map(read)
        const [first] = ring
        expect(ring.length).toBe(size)
        if (leaf === undefined || first === undefined) return
        expect(leaf.verify(first.publicKey)).toBe(true)
        ring.forEach((certificate, index) => {
          const issuer = ring[(index + 1) % size] ?? certificate
          expect(certificate.checkIssued(issuer)).toBe(true)
          expect(certificate.verify(issuer.publicKey)).toBe(true)
          expect(certificate.subject).not.toBe(certificate.issuer)
        })
      }
    })
  )

  it.effect("lets a workload's key act as a CA", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      const attacker = CertificateAuthority.fromCredentials(yield* authority.issueRaw(), "example.org")
      const { certificates } = yield* CertificateAuthority.issue(attacker, { uris: ["spiffe://example.org/admin"] })
      expect(certificates.length).toBe(3)
      const [forged, own, ...rest] = certificates
      if (own === undefined) return
      expect(read(forged).issuer).toBe(read(own).subject)
      expect(read(forged).verify(read(own).publicKey)).toBe(true)
      expectSigned([own, ...rest, authority.roots[0].certificate])
    })
  )

  it.effect("presents a leaf with other certificates, or with a key that is not its own", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 2 })
      const credentials = yield* authority.issueRaw()
      const junk = Uint8Array.of(1, 2, 3)
      expect(Credentials.withChain(credentials, [junk]).certificates).toEqual([credentials.certificates[0], junk])
      const stolen = Credentials.withKeyPair(credentials, yield* KeyPair.make("P-256"))
      const mismatch = yield* Effect.flip(
        X509Svid.fromPem({ certificates: stolen.certificatesPem, privateKey: stolen.privateKeyPem })
      )
      expect(mismatch.reason).toBe("Malformed")
    })
  )
})
