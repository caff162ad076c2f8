/**
 * Peers that differ in what is above their leaf, or in what the verifier trusts.
 */
import { X509Bundle, X509BundleSet } from "@agentweave/spiffe"
import * as Effect from "effect/Effect"
import * as CertificateAuthority from "../../CertificateAuthority.js"
import type { CertificateProfile } from "../../CertificateProfile.js"
import * as Credentials from "../../Credentials.js"
import * as DevAuthority from "../../DevAuthority.js"
import type { Arranged, ArrangeError, PeerCase } from "../../PeerCase.js"

const path = "/peer"

type Build = (authority: DevAuthority.DevAuthority) => Effect.Effect<
  {
    readonly credentials: Credentials.Credentials
    /** Default: the bundle of the authority the case was given. */
    readonly bundles?: X509BundleSet.X509BundleSet
    /** Default: `/peer` of the given authority's trust domain. */
    readonly expects?: Arranged["expects"]
  },
  ArrangeError
>

const chain = (verdict: PeerCase["verdict"], name: string, build: Build): PeerCase => ({
  name,
  verdict,
  purpose: undefined,
  arrange: Effect.fnUntraced(function* (authority) {
    const built = yield* build(authority)
    return {
      credentials: built.credentials,
      bundles: built.bundles ?? (yield* DevAuthority.bundles([authority])),
      expects: built.expects ?? authority.id(path)
    }
  })
})

/** A proper leaf below some CA, with a proper key whatever the CA's is. */
const under = (issuer: CertificateAuthority.CertificateAuthority, profile: CertificateProfile = {}) =>
  Effect.map(
    CertificateAuthority.issue(issuer, {
      uris: [`spiffe://${issuer.trustDomain}${path}`],
      keyAlgorithm: "P-256",
      ...profile
    }),
    (credentials) => ({ credentials })
  )

/** The leaf's CA is an intermediate below the authority's root, with something about it. */
const intermediate = (
  verdict: PeerCase["verdict"],
  name: string,
  profile: CertificateProfile,
  leaf: CertificateProfile = {}
): PeerCase =>
  chain(verdict, name, ({ roots: [root] }) =>
    Effect.flatMap(CertificateAuthority.makeIntermediate(root, profile), (issuer) => under(issuer, leaf))
  )

/** The verifier trusts a root with something about it, and the leaf is right below (or below an intermediate). */
const root = (
  verdict: PeerCase["verdict"],
  name: string,
  profile: CertificateProfile,
  options: { readonly intermediates?: number } = {}
): PeerCase =>
  chain(verdict, name, ({ trustDomain }) =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain, root: profile, ...options })
      const credentials = yield* authority.issueRaw({ path, keyAlgorithm: "P-256" })
      return { credentials, bundles: X509BundleSet.of(authority.bundle) }
    })
  )

const unknownCritical = [{ oid: "1.3.6.1.4.1.99999.1", critical: true, value: Uint8Array.of(0x05, 0x00) }]
const hosts = (...uris: ReadonlyArray<string>) => ({ uris })

const trust: ReadonlyArray<PeerCase> = [
  chain("UntrustedChain", "a foreign CA that signs our domain", ({ trustDomain }) =>
    Effect.flatMap(CertificateAuthority.makeRoot({ trustDomain }), (foreign) => under(foreign))
  ),
  chain("UntrustedChain", "a foreign chain with our real root attached", ({ roots: [real], trustDomain }) =>
    Effect.flatMap(CertificateAuthority.makeRoot({ trustDomain }), (foreign) =>
      under(CertificateAuthority.withChain(foreign, [foreign.certificate, real.certificate]))
    )
  ),
  chain("UntrustedChain", "a fake root with the real one's name and key identifier", ({ roots: [real] }) =>
    Effect.flatMap(CertificateAuthority.makeImpostor(real), (fake) =>
      under(CertificateAuthority.withChain(fake, [fake.certificate, real.certificate]))
    )
  ),
  chain("UntrustedChain", "an intermediate below a fake root, the real root attached", ({ roots: [real] }) =>
    Effect.gen(function* () {
      const fake = yield* CertificateAuthority.makeImpostor(real)
      const issuer = yield* CertificateAuthority.makeIntermediate(fake)
      return yield* under(CertificateAuthority.withChain(issuer, [...issuer.chain, real.certificate]))
    })
  ),
  intermediate("UntrustedChain", "an intermediate with a wrong signature", { signature: "WrongKey" }),
  intermediate("UntrustedChain", "an intermediate altered after it was signed", { signature: "Altered" }),
  chain("InvalidChain", "an SVID used as an issuer", (authority) =>
    Effect.flatMap(authority.issueRaw({ path: "/attacker" }), (attacker) =>
      under(CertificateAuthority.fromCredentials(attacker, authority.trustDomain))
    )
  ),
  chain("UntrustedChain", "a chain without its intermediate", ({ roots: [top] }) =>
    Effect.flatMap(CertificateAuthority.makeIntermediate(top), (issuer) =>
      under(CertificateAuthority.withChain(issuer, []))
    )
  ),
  chain("UntrustedChain", "a loop of two CAs without anchor", ({ trustDomain }) =>
    Effect.flatMap(CertificateAuthority.makeLoop({ trustDomain }), (loop) => under(loop))
  ),
  chain("UntrustedChain", "a loop of eight CAs without anchor", ({ trustDomain }) =>
    Effect.flatMap(CertificateAuthority.makeLoop({ trustDomain, size: 8 }), (loop) => under(loop))
  ),
  chain("NoBundle", "a trust domain the verifier knows nothing of", () =>
    Effect.gen(function* () {
      const stranger = yield* DevAuthority.make({ trustDomain: "stranger.test" })
      return { credentials: yield* stranger.issueRaw({ path }), expects: stranger.id(path) }
    })
  ),
  chain("NoBundle", "a trust domain whose bundle was removed", (authority) =>
    Effect.map(authority.issueRaw({ path }), (credentials) => ({ credentials, bundles: X509BundleSet.empty }))
  ),
  chain("UntrustedChain", "a trust domain whose bundle was emptied", (authority) =>
    Effect.map(authority.issueRaw({ path }), (credentials) => ({
      credentials,
      bundles: X509BundleSet.of(X509Bundle.empty(authority.trustDomain))
    }))
  ),
  chain("Accepted", "a federated peer under its own bundle", (authority) =>
    Effect.gen(function* () {
      const partner = yield* DevAuthority.make({ trustDomain: "partner.test", intermediates: 1 })
      return {
        credentials: yield* partner.issueRaw({ path }),
        bundles: yield* DevAuthority.bundles([authority, partner]),
        expects: partner.id(path)
      }
    })
  ),
  chain("UntrustedChain", "our ID signed by a federated domain's CA", (authority) =>
    Effect.gen(function* () {
      const partner = yield* DevAuthority.make({ trustDomain: "partner.test" })
      return {
        credentials: yield* partner.issueRaw({ id: authority.id(path) }),
        bundles: yield* DevAuthority.bundles([authority, partner])
      }
    })
  ),
  chain("UntrustedChain", "a federated domain's ID signed by our CA", (authority) =>
    Effect.gen(function* () {
      const partner = yield* DevAuthority.make({ trustDomain: "partner.test" })
      return {
        credentials: yield* authority.issueRaw({ id: partner.id(path) }),
        bundles: yield* DevAuthority.bundles([authority, partner]),
        expects: partner.id(path)
      }
    })
  )
]

const rollOver: ReadonlyArray<PeerCase> = [
  chain("Accepted", "a new root cross-signed by the old one, before the verifier knows it", (authority) =>
    Effect.gen(function* () {
      const next = yield* authority.rotateRoot()
      return yield* under(yield* CertificateAuthority.crossSign(authority.roots[0], next.roots[0]))
    })
  ),
  chain("Accepted", "a new root cross-signed by the old one, after the old one is gone", (authority) =>
    Effect.gen(function* () {
      const next = yield* Effect.flatMap(authority.rotateRoot(), (rotated) => rotated.retireOldRoots)
      const cross = yield* CertificateAuthority.crossSign(authority.roots[0], next.roots[0])
      return { ...(yield* under(cross)), bundles: X509BundleSet.of(next.bundle) }
    })
  ),
  chain("Accepted", "an old root cross-signed by the new one, after the old one is gone", (authority) =>
    Effect.gen(function* () {
      const next = yield* Effect.flatMap(authority.rotateRoot(), (rotated) => rotated.retireOldRoots)
      const cross = yield* CertificateAuthority.crossSign(next.roots[0], authority.roots[0])
      return { ...(yield* under(cross)), bundles: X509BundleSet.of(next.bundle) }
    })
  ),
  chain("UntrustedChain", "an old root after it is gone", (authority) =>
    Effect.gen(function* () {
      const next = yield* Effect.flatMap(authority.rotateRoot(), (rotated) => rotated.retireOldRoots)
      return { ...(yield* under(authority.roots[0])), bundles: X509BundleSet.of(next.bundle) }
    })
  )
]

const authorities: ReadonlyArray<PeerCase> = [
  intermediate("Accepted", "an intermediate", {}),
  intermediate("Accepted", "an intermediate without a SPIFFE ID", { uris: [] }),
  intermediate("Accepted", "an intermediate without key usage", { keyUsage: "Absent" }),
  intermediate("Accepted", "an intermediate with path length 0", { basicConstraints: { ca: true, pathLength: 0 } }),
  intermediate("InvalidChain", "an intermediate with CA=false and keyCertSign", { basicConstraints: { ca: false } }),
  intermediate("InvalidChain", "an intermediate without basic constraints", { basicConstraints: "Absent" }),
  intermediate("InvalidChain", "an intermediate without keyCertSign", { keyUsage: ["cRLSign"] }),
  intermediate("InvalidChain", "an intermediate with an unknown critical extension", { extensions: unknownCritical }),
  intermediate("InvalidChain", "an intermediate of another trust domain", { uris: ["spiffe://other.test"] }),
  intermediate("InvalidChain", "an intermediate with an RSA-1024 key", { keyAlgorithm: "RSA-1024" }),
  intermediate("InvalidChain", "an intermediate signed over SHA-1", { signatureHash: "SHA-1" }),
  intermediate("Expired", "an expired intermediate", { validity: "Expired" }),
  intermediate("NotYetValid", "an intermediate that is not valid yet", { validity: "Future" }),
  chain("InvalidChain", "an intermediate below one with path length 0", ({ roots: [top] }) =>
    Effect.gen(function* () {
      const above = yield* CertificateAuthority.makeIntermediate(top, { basicConstraints: { ca: true, pathLength: 0 } })
      return yield* under(yield* CertificateAuthority.makeIntermediate(above))
    })
  ),
  root("InvalidChain", "a root with CA=false and keyCertSign", { basicConstraints: { ca: false } }),
  root("InvalidChain", "a root without keyCertSign", { keyUsage: ["cRLSign"] }),
  root("InvalidChain", "a root with an unknown critical extension", { extensions: unknownCritical }),
  root("InvalidChain", "a root with an RSA-1024 key", { keyAlgorithm: "RSA-1024" }),
  root(
    "InvalidChain",
    "an intermediate below a root with path length 0",
    { basicConstraints: { ca: true, pathLength: 0 } },
    { intermediates: 1 }
  ),
  root(
    "Accepted",
    "a root with path length 1",
    { basicConstraints: { ca: true, pathLength: 1 } },
    { intermediates: 1 }
  ),
  root("Accepted", "a root whose own signature is over SHA-1", { signatureHash: "SHA-1" }),
  root("Accepted", "a root for servers and clients", { extendedKeyUsage: ["serverAuth", "clientAuth"] }),
  root("InvalidChain", "a root for code signing", { extendedKeyUsage: ["1.3.6.1.5.5.7.3.3"] }),
  intermediate("InvalidChain", "an intermediate for code signing", { extendedKeyUsage: ["1.3.6.1.5.5.7.3.3"] }),
  root("Accepted", "an RSA-2048 root", { keyAlgorithm: "RSA-2048" }),
  root("Accepted", "a P-521 root", { keyAlgorithm: "P-521" }),
  root("Accepted", "an Ed25519 root", { keyAlgorithm: "Ed25519" }),
  root("Expired", "an expired root", { validity: "Expired" }),
  root("NotYetValid", "a root that is not valid yet", { validity: "Future" })
]

const constraints: ReadonlyArray<PeerCase> = [
  intermediate("InvalidChain", "an intermediate permitted another URI host only", {
    nameConstraints: { permitted: hosts("other.test") }
  }),
  chain("Accepted", "an intermediate permitted our URI host", ({ roots: [top], trustDomain }) =>
    Effect.flatMap(
      CertificateAuthority.makeIntermediate(top, { nameConstraints: { permitted: hosts(trustDomain) } }),
      (issuer) => under(issuer)
    )
  ),
  chain("InvalidChain", "an intermediate with our URI host excluded", ({ roots: [top], trustDomain }) =>
    Effect.flatMap(
      CertificateAuthority.makeIntermediate(top, { nameConstraints: { excluded: hosts(trustDomain) } }),
      (issuer) => under(issuer)
    )
  ),
  intermediate("Accepted", "an intermediate with another URI host excluded", {
    nameConstraints: { excluded: hosts("other.test") }
  }),
  intermediate(
    "InvalidChain",
    "a leaf with a DNS name its intermediate is not permitted",
    { nameConstraints: { permitted: { dnsNames: ["internal"] } } },
    { dnsNames: ["api.evil.test"] }
  ),
  intermediate(
    "InvalidChain",
    "a leaf with a DNS name excluded for its intermediate",
    { nameConstraints: { excluded: { dnsNames: ["internal"] } } },
    { dnsNames: ["api.internal"] }
  ),
  intermediate(
    "Accepted",
    "a leaf with a DNS name its intermediate is permitted",
    { nameConstraints: { permitted: { dnsNames: ["internal"] } } },
    { dnsNames: ["api.internal"] }
  ),
  intermediate(
    "Accepted",
    "a leaf with names of every form its intermediate is permitted",
    {
      subject: "O=SPIFFE,CN=ca",
      nameConstraints: {
        permitted: {
          ipRanges: ["127.0.0.0/8"],
          emails: ["internal"],
          directoryNames: ["O=SPIFFE"],
          dnsNames: ["internal"]
        }
      }
    },
    { subject: "O=SPIFFE,CN=api", ipAddresses: ["127.0.0.1"], emails: ["ops@internal"], dnsNames: ["api.internal"] }
  ),
  intermediate(
    "InvalidChain",
    "a leaf with an IP address its intermediate is not permitted",
    { nameConstraints: { permitted: { ipRanges: ["10.0.0.0/8"] } } },
    { ipAddresses: ["127.0.0.1"] }
  ),
  intermediate(
    "InvalidChain",
    "a leaf with an email address excluded for its intermediate",
    { nameConstraints: { excluded: { emails: ["internal"] } } },
    { emails: ["ops@internal"] }
  ),
  intermediate(
    "InvalidChain",
    "a leaf whose subject is excluded for its intermediate",
    { nameConstraints: { excluded: { directoryNames: ["O=Evil"] } } },
    { subject: "O=Evil,CN=api" }
  ),
  root("InvalidChain", "a root permitted another URI host only", {
    nameConstraints: { permitted: hosts("other.test") }
  }),
  chain("InvalidChain", "a root with our URI host excluded", ({ trustDomain }) =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({
        trustDomain,
        root: { nameConstraints: { excluded: hosts(trustDomain) } }
      })
      return { credentials: yield* authority.issueRaw({ path }), bundles: X509BundleSet.of(authority.bundle) }
    })
  )
]

/** A leaf below two intermediates; the certificates above it rearranged among so many `strangers`. */
const rearranged = (
  verdict: PeerCase["verdict"],
  name: string,
  strangers: number,
  rearrange: (above: ReadonlyArray<Uint8Array>, strangers: ReadonlyArray<Uint8Array>) => ReadonlyArray<Uint8Array>
): PeerCase =>
  chain(verdict, name, ({ roots: [top] }) =>
    Effect.gen(function* () {
      const first = yield* CertificateAuthority.makeIntermediate(top)
      const second = yield* CertificateAuthority.makeIntermediate(first)
      const { credentials } = yield* under(second)
      const roots = yield* Effect.replicateEffect(
        CertificateAuthority.makeRoot({ trustDomain: "junk.test" }),
        strangers
      )
      const [, ...above] = credentials.certificates
      const others = roots.map((stranger) => stranger.certificate)
      return { credentials: Credentials.withChain(credentials, rearrange(above, others)) }
    })
  )

const presented: ReadonlyArray<PeerCase> = [
  rearranged("Accepted", "two intermediates", 0, (above) => above),
  rearranged("Accepted", "intermediates in the wrong order", 0, (above) => above.toReversed()),
  rearranged("Accepted", "intermediates among unrelated certificates", 5, (above, strangers) => [
    ...strangers.slice(0, 3),
    ...above,
    ...strangers.slice(3)
  ]),
  rearranged("LimitExceeded", "eleven certificates", 8, (above, strangers) => [...above, ...strangers]),
  chain("Accepted", "an intermediate that is itself the anchor", (authority) =>
    Effect.gen(function* () {
      const issuer = yield* CertificateAuthority.makeIntermediate(authority.roots[0])
      const bundle = yield* X509Bundle.fromDer(authority.trustDomain, [issuer.certificate])
      return { ...(yield* under(issuer)), bundles: X509BundleSet.of(bundle) }
    })
  )
]

export const chainCases: ReadonlyArray<PeerCase> = [...trust, ...rollOver, ...authorities, ...constraints, ...presented]
