/**
 * Peers that differ in their leaf alone.
 */
import * as Effect from "effect/Effect"
import type { CertificateProfile } from "../../CertificateProfile.js"
import * as DevAuthority from "../../DevAuthority.js"
import type { PeerCase } from "../../PeerCase.js"

const path = "/peer"

const leaf = (
  verdict: PeerCase["verdict"],
  name: string,
  profile: CertificateProfile | ((id: string) => CertificateProfile),
  purpose?: PeerCase["purpose"]
): PeerCase => ({
  name,
  verdict,
  purpose,
  arrange: Effect.fnUntraced(function* (authority) {
    const expects = authority.id(path)
    const options = typeof profile === "function" ? profile(expects) : profile
    return {
      credentials: yield* authority.issueRaw({ path, ...options }),
      bundles: yield* DevAuthority.bundles([authority]),
      expects
    }
  })
})

const unknownExtension = (critical: boolean) => [
  { oid: "1.3.6.1.4.1.99999.1", critical, value: Uint8Array.of(0x05, 0x00) }
]

const badId = (what: string, change: (id: string) => string): PeerCase =>
  leaf("InvalidSpiffeId", `an ID ${what}`, (id) => ({ uris: [change(id)] }))

const latin1 = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0))

const accepted: ReadonlyArray<PeerCase> = [
  leaf("Accepted", "a proper leaf", {}),
  leaf("Accepted", "a leaf with DNS, IP and email names besides its ID", {
    dnsNames: ["api.internal"],
    ipAddresses: ["127.0.0.1"],
    emails: ["ops@internal"]
  }),
  leaf("Accepted", "a leaf with 128 names", {
    dnsNames: Array.from({ length: 127 }, (_, index) => `n${index}.internal`)
  }),
  leaf("Accepted", "a leaf without extended key usage", { extendedKeyUsage: "Absent" }),
  leaf("Accepted", "a leaf without basic constraints", { basicConstraints: "Absent" }),
  leaf("Accepted", "a leaf with more key usages than it needs", { keyUsage: ["digitalSignature", "keyEncipherment"] }),
  leaf("Accepted", "a leaf without authority key identifier", { authorityKeyIdentifier: "Absent" }),
  leaf("Accepted", "a leaf without subject key identifier", { subjectKeyIdentifier: "Absent" }),
  leaf("Accepted", "a leaf with an unknown extension that is not critical", { extensions: unknownExtension(false) }),
  leaf("Accepted", "a leaf with a P-384 key", { keyAlgorithm: "P-384" }),
  leaf("Accepted", "a leaf with a P-521 key", { keyAlgorithm: "P-521" }),
  leaf("Accepted", "a leaf with an Ed25519 key", { keyAlgorithm: "Ed25519" }),
  leaf("Accepted", "a leaf with an RSA-2048 key", { keyAlgorithm: "RSA-2048" }),
  leaf("Accepted", "a leaf for servers only, as a server", { extendedKeyUsage: ["serverAuth"] }, "ServerAuth"),
  leaf("Accepted", "a leaf for clients only, as a client", { extendedKeyUsage: ["clientAuth"] }, "ClientAuth")
]

const improper: ReadonlyArray<PeerCase> = [
  leaf("InvalidLeaf", "a leaf with CA=true", { basicConstraints: { ca: true } }),
  leaf("InvalidLeaf", "a leaf with keyCertSign", { keyUsage: ["digitalSignature", "keyCertSign"] }),
  leaf("InvalidLeaf", "a leaf with cRLSign", { keyUsage: ["digitalSignature", "cRLSign"] }),
  leaf("InvalidLeaf", "a leaf without digitalSignature", { keyUsage: ["keyAgreement"] }),
  leaf("InvalidLeaf", "a leaf without key usage", { keyUsage: "Absent" }),
  leaf("InvalidLeaf", "a leaf with an unknown critical extension", { extensions: unknownExtension(true) }),
  leaf("InvalidLeaf", "a leaf with an RSA-1024 key", { keyAlgorithm: "RSA-1024" }),
  leaf("InvalidLeaf", "a leaf with an Ed448 key", { keyAlgorithm: "Ed448" }),
  leaf("InvalidLeaf", "a leaf with a secp256k1 key", { keyAlgorithm: "secp256k1" }),
  leaf("InvalidLeaf", "a leaf signed over SHA-1", { signatureHash: "SHA-1" }),
  leaf("InvalidLeaf", "a leaf for servers only, as a client", { extendedKeyUsage: ["serverAuth"] }, "ClientAuth"),
  leaf("InvalidLeaf", "a leaf for clients only, as a server", { extendedKeyUsage: ["clientAuth"] }, "ServerAuth"),
  leaf("InvalidLeaf", "a leaf for code signing", { extendedKeyUsage: ["1.3.6.1.5.5.7.3.3"] }),
  leaf("Expired", "an expired leaf", { validity: "Expired" }),
  leaf("NotYetValid", "a leaf that is not valid yet", { validity: "Future" }),
  leaf("UntrustedChain", "a leaf altered after it was signed", { signature: "Altered" }),
  leaf("UntrustedChain", "a leaf signed with another key", { signature: "WrongKey" }),
  leaf("UntrustedChain", "a leaf that states another authority key identifier", {
    authorityKeyIdentifier: "00112233445566778899aabbccddeeff00112233"
  }),
  leaf("LimitExceeded", "a leaf with 129 names", {
    dnsNames: Array.from({ length: 128 }, (_, index) => `n${index}.internal`)
  }),
  leaf("LimitExceeded", "a leaf of 70 kB", {
    extensions: [{ oid: "1.3.6.1.4.1.99999.2", critical: false, value: new Uint8Array(70_000) }]
  })
]

const names: ReadonlyArray<PeerCase> = [
  leaf("UnexpectedPeer", "the wrong ID under the right CA", (id) => ({ uris: [`${id}-other`] })),
  leaf("UnexpectedPeer", "an ID that differs in case", (id) => ({ uris: [id.replace("peer", "Peer")] })),
  leaf("InvalidSpiffeId", "two URI names", (id) => ({ uris: [id, `${id}-2`] })),
  leaf("InvalidSpiffeId", "its ID and a URI that is not spiffe", (id) => ({ uris: [id, "https://example.org/"] })),
  leaf("InvalidSpiffeId", "a URI that is not spiffe", (id) => ({ uris: [id.replace("spiffe:", "https:")] })),
  leaf("InvalidSpiffeId", "no URI name", { uris: [], dnsNames: ["api.internal"] }),
  leaf("InvalidSpiffeId", "no names at all", { uris: [] }),
  badId("without a path", (id) => id.slice(0, id.lastIndexOf("/"))),
  badId("with a trailing slash", (id) => `${id}/`),
  badId("with an empty segment", (id) => `${id}//x`),
  badId("with a dot segment", (id) => `${id}/./x`),
  badId("with a dot-dot segment", (id) => `${id}/../peer`),
  badId("with a percent sign", (id) => id.replace("peer", "%70eer")),
  badId("with an upper-case trust domain", (id) => id.replace(/\/\/([^/]+)/, (whole) => whole.toUpperCase())),
  badId("with a port", (id) => id.replace("/peer", ":443/peer")),
  badId("with a user", (id) => id.replace("//", "//root@")),
  badId("with a query", (id) => `${id}?x=1`),
  badId("with a fragment", (id) => `${id}#x`),
  badId("with a space", (id) => `${id} `),
  badId("with a NUL byte", (id) => `${id}\u0000.evil`),
  badId("of 2049 bytes", (id) => id.padEnd(2049, "x")),
  leaf("InvalidSpiffeId", "an ID with a byte that is not ASCII", (id) => ({ uris: [latin1(`${id}\u00e9`)] }))
]

export const leafCases: ReadonlyArray<PeerCase> = [...accepted, ...improper, ...names]
