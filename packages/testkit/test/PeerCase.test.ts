import { X509Certificate } from "node:crypto"
import { TrustDomain } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as PeerCase from "@agentweave/testkit/PeerCase"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Either } from "effect"
import { loadX509 } from "../src/internal/mint/x509.js"

const x509 = loadX509()

const known = new Map<string, { readonly authority: string | undefined; readonly subject: string | undefined }>()

const identifiers = (certificate: X509Certificate) => {
  const { fingerprint256 } = certificate
  const found = known.get(fingerprint256) ?? readIdentifiers(certificate)
  known.set(fingerprint256, found)
  return found
}

const readIdentifiers = (certificate: X509Certificate) => {
  const parsed = new x509.X509Certificate(Uint8Array.from(certificate.raw))
  return {
    authority: parsed.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId,
    subject: parsed.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId
  }
}

/** By name, by key identifier where both state one, and by signature: what the issuer may sign is not asked. */
const issuedBy = (certificate: X509Certificate, issuer: X509Certificate): boolean => {
  if (certificate.issuer !== issuer.subject || !certificate.verify(issuer.publicKey)) return false
  const { authority } = identifiers(certificate)
  const { subject } = identifiers(issuer)
  return authority === undefined || subject === undefined || authority === subject
}

/** Whether signatures and names lead from the leaf to an anchor, whatever else may be wrong. */
const reaches = (
  certificate: X509Certificate,
  candidates: ReadonlyArray<X509Certificate>,
  anchors: ReadonlyArray<X509Certificate>
): boolean => {
  const issued = (issuer: X509Certificate) => issuedBy(certificate, issuer)
  if (anchors.some((anchor) => anchor.raw.equals(certificate.raw) || issued(anchor))) return true
  return candidates.some(
    (issuer) =>
      issued(issuer) &&
      reaches(
        issuer,
        candidates.filter((other) => other !== issuer),
        anchors
      )
  )
}

const signedPath = ({ bundles, credentials, expects }: PeerCase.Arranged): boolean => {
  const [leaf, ...candidates] = credentials.certificates.map((der) => new X509Certificate(der))
  const trustDomain = TrustDomain.make(expects.split("/")[2] ?? "")
  const anchors = bundles.bundles.get(trustDomain)?.authorities ?? []
  return (
    leaf !== undefined &&
    reaches(
      leaf,
      candidates,
      anchors.map((der) => new X509Certificate(der))
    )
  )
}

describe("PeerCase", () => {
  it("has distinct names, and accepted peers among the refused", () => {
    expect(new Set(PeerCase.all.map(({ name, purpose }) => `${name} ${purpose}`)).size).toBe(PeerCase.all.length)
    expect(PeerCase.all.filter(({ verdict }) => verdict === "Accepted").length).toBeGreaterThan(20)
    expect(PeerCase.all.filter(({ verdict }) => verdict !== "Accepted").length).toBeGreaterThan(60)
  })

  // Dated by the clock every test starts with.
  const authority = Effect.runSync(Effect.cached(DevAuthority.make({ trustDomain: "example.org" })))
  const arranged = new Map<PeerCase.PeerCase, PeerCase.Arranged>()
  const arrange = Effect.fnUntraced(function* (peer: PeerCase.PeerCase) {
    const made = arranged.get(peer) ?? (yield* peer.arrange(yield* authority))
    arranged.set(peer, made)
    return made
  })

  describe("is signed up to an anchor of its own domain exactly where the verdict is not about trust", () => {
    for (const peer of PeerCase.all) {
      it.effect(`${peer.verdict}: ${peer.name}`, () =>
        Effect.gen(function* () {
          const trusted = signedPath(yield* arrange(peer))
          expect(trusted).toBe(!["UntrustedChain", "NoBundle"].includes(peer.verdict))
        })
      )
    }
  })

  // Roles and the size of what comes over the wire mean nothing to a SVID of our own.
  const peersOnly = (peer: PeerCase.PeerCase) =>
    peer.purpose !== undefined || ["a leaf for code signing", "a leaf of 70 kB"].includes(peer.name)

  describe("is refused as our own SVID wherever the leaf itself is improper, and only there", () => {
    for (const peer of PeerCase.leaf.filter((peer) => !peersOnly(peer))) {
      it.effect(`${peer.verdict}: ${peer.name}`, () =>
        Effect.gen(function* () {
          const { credentials } = yield* arrange(peer)
          const refused = Either.isLeft(DevAuthority.toSvid(credentials))
          expect(refused).toBe(["InvalidLeaf", "InvalidSpiffeId", "LimitExceeded"].includes(peer.verdict))
        })
      )
    }
  })
})
