/**
 * Peers as the authorities that people run issue them, from their documented templates: which extensions there are, and
 * which are critical.
 */
import { X509Bundle, X509BundleSet } from "@agentweave/spiffe"
import * as Effect from "effect/Effect"
import * as CertificateAuthority from "../../CertificateAuthority.js"
import type { CertificateProfile, RawExtension } from "../../CertificateProfile.js"
import type { PeerCase } from "../../PeerCase.js"
import { sequence, tlv } from "../mint/derWriter.js"

/** A chain of authorities and a leaf below the last one. */
interface Template {
  readonly root: CertificateProfile
  readonly intermediates?: ReadonlyArray<CertificateProfile>
  readonly leaf: CertificateProfile
  readonly verdict?: PeerCase["verdict"]
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Alternative names where the subject is empty: critical (RFC 5280 section 4.2.1.6). */
const criticalUri = (uri: string): RawExtension => ({
  oid: "2.5.29.17",
  critical: true,
  value: sequence(tlv(0x86, ascii(uri)))
})

/** Where to find revocation lists; the gate does not look. */
const crlDistributionPoint: RawExtension = {
  oid: "2.5.29.31",
  critical: false,
  value: sequence(sequence(tlv(0xa0, tlv(0xa0, tlv(0x86, ascii("http://crl.internal/ca.crl"))))))
}

const authorityInformationAccess: RawExtension = {
  oid: "1.3.6.1.5.5.7.1.1",
  critical: false,
  value: sequence(
    sequence(tlv(0x06, Uint8Array.of(0x2b, 6, 1, 5, 5, 7, 0x30, 2)), tlv(0x86, ascii("http://ca.internal/ca.crt")))
  )
}

const smallstepProvisioner: RawExtension = {
  oid: "1.3.6.1.4.1.37476.9000.64.1",
  critical: false,
  value: sequence(tlv(0x02, Uint8Array.of(1)), tlv(0x04, ascii("spiffe")), tlv(0x04, ascii("provisioner")))
}

const signing = ["keyCertSign", "cRLSign"] as const
const pathLength = (length: number) => ({ ca: true, pathLength: length })

const templates = (trustDomain: string, id: string): Readonly<Record<string, Template>> => {
  const uris = [`spiffe://${trustDomain}`]
  const spireLeaf: CertificateProfile = {
    subject: "C=US,O=SPIRE",
    keyUsage: ["digitalSignature", "keyEncipherment", "keyAgreement"],
    uris: [id]
  }
  const spireRoot = { subject: "C=US,O=SPIFFE", uris, authorityKeyIdentifier: "Absent" } as const
  return {
    "SPIRE with P-256": { root: { ...spireRoot, keyAlgorithm: "P-256" }, leaf: spireLeaf },
    "SPIRE with P-384": {
      root: { ...spireRoot, keyAlgorithm: "P-384" },
      leaf: { ...spireLeaf, keyAlgorithm: "P-256" }
    },
    "SPIRE with RSA-4096": {
      root: { ...spireRoot, keyAlgorithm: "RSA-4096" },
      leaf: { ...spireLeaf, keyAlgorithm: "RSA-2048" }
    },
    "SPIRE below an upstream authority": {
      root: { subject: "CN=Upstream Root,O=Example", uris: [], keyUsage: signing },
      intermediates: [{ subject: "C=US,O=SPIFFE", uris }],
      leaf: spireLeaf
    },
    "nested SPIRE": {
      root: { subject: "CN=Upstream Root,O=Example", uris: [] },
      intermediates: [
        { subject: "C=US,O=SPIFFE", uris },
        { subject: "C=US,O=SPIFFE,OU=DOWNSTREAM-1", uris }
      ],
      leaf: spireLeaf
    },
    Istio: {
      root: { subject: "O=cluster.local", uris: [], keyUsage: ["keyCertSign"] },
      leaf: {
        subject: "",
        uris: [],
        keyUsage: ["digitalSignature", "keyEncipherment"],
        extensions: [criticalUri(id)]
      }
    },
    "Istio without key identifiers": {
      root: {
        subject: "O=cluster.local",
        uris: [],
        keyUsage: ["keyCertSign"],
        keyAlgorithm: "RSA-2048",
        subjectKeyIdentifier: "Absent",
        authorityKeyIdentifier: "Absent"
      },
      leaf: {
        subject: "",
        uris: [],
        keyUsage: ["digitalSignature", "keyEncipherment"],
        subjectKeyIdentifier: "Absent",
        authorityKeyIdentifier: "Absent",
        extensions: [criticalUri(id)]
      }
    },
    Consul: {
      root: {
        subject: "CN=pri-1a2b3c4.consul.ca.11111111.consul",
        uris,
        keyUsage: ["digitalSignature", ...signing]
      },
      intermediates: [
        {
          subject: "CN=sec-5d6e7f8.consul.ca.11111111.consul",
          uris,
          keyUsage: ["digitalSignature", ...signing],
          basicConstraints: pathLength(0)
        }
      ],
      leaf: {
        subject: "CN=web",
        keyUsage: ["digitalSignature", "keyEncipherment"],
        uris: [id],
        dnsNames: ["web.consul"]
      }
    },
    Vault: {
      root: { subject: "CN=example.com", uris: [], keyAlgorithm: "RSA-2048", dnsNames: ["example.com"] },
      intermediates: [
        { subject: "CN=example.com Intermediate Authority", uris: [], extensions: [crlDistributionPoint] }
      ],
      leaf: {
        subject: "CN=api.example.com",
        basicConstraints: "Absent",
        keyUsage: ["digitalSignature", "keyEncipherment", "keyAgreement"],
        uris: [id],
        dnsNames: ["api.example.com"],
        extensions: [authorityInformationAccess, crlDistributionPoint]
      }
    },
    "cert-manager with csi-driver-spiffe": {
      root: {
        subject: "CN=csi-driver-spiffe-ca",
        uris: [],
        keyUsage: ["digitalSignature", "keyEncipherment", "keyCertSign"]
      },
      leaf: {
        subject: "",
        uris: [],
        keyUsage: ["digitalSignature", "keyEncipherment"],
        subjectKeyIdentifier: "Absent",
        extensions: [criticalUri(id)]
      }
    },
    "step-ca": {
      root: { subject: "O=Smallstep,CN=Smallstep Root CA", uris: [], basicConstraints: pathLength(1) },
      intermediates: [
        { subject: "O=Smallstep,CN=Smallstep Intermediate CA", uris: [], basicConstraints: pathLength(0) }
      ],
      leaf: { subject: "CN=api", basicConstraints: "Absent", uris: [id], extensions: [smallstepProvisioner] }
    },
    "AWS Private CA": {
      root: {
        subject: "C=US,O=Example,OU=Root,CN=Root",
        uris: [],
        keyAlgorithm: "RSA-2048",
        keyUsage: ["digitalSignature", ...signing]
      },
      intermediates: [
        {
          subject: "C=US,O=Example,OU=Issuing,CN=Issuing",
          uris: [],
          basicConstraints: pathLength(0),
          keyUsage: ["digitalSignature", ...signing]
        }
      ],
      leaf: {
        subject: "CN=api",
        keyUsage: ["digitalSignature", "keyEncipherment"],
        uris: [id],
        extensions: [crlDistributionPoint]
      }
    },
    Linkerd: {
      root: { subject: "CN=root.linkerd.cluster.local", uris: [], basicConstraints: pathLength(1) },
      intermediates: [{ subject: "CN=identity.linkerd.cluster.local", uris: [], basicConstraints: pathLength(0) }],
      // Its own identity authority names a workload by a DNS name alone: that is no X.509-SVID.
      leaf: {
        subject: "CN=web.default.serviceaccount.identity.linkerd.cluster.local",
        basicConstraints: "Absent",
        keyUsage: ["digitalSignature", "keyEncipherment"],
        uris: [],
        dnsNames: ["web.default.serviceaccount.identity.linkerd.cluster.local"]
      },
      verdict: "InvalidSpiffeId"
    },
    Kuma: {
      root: { subject: "O=Kuma,OU=Mesh,CN=default", uris, keyAlgorithm: "RSA-2048" },
      // A tag of the mesh beside the SPIFFE ID makes two URIs: that is no X.509-SVID.
      leaf: {
        subject: "",
        keyUsage: ["digitalSignature", "keyEncipherment", "keyAgreement"],
        uris: [id, "kuma://kuma.io/service/web"]
      },
      verdict: "InvalidSpiffeId"
    },
    Dapr: {
      root: { subject: "O=dapr.io/sentry,CN=cluster.local", uris: [], keyUsage: ["keyCertSign"] },
      intermediates: [{ subject: "O=dapr.io/sentry,CN=cluster.local issuer", uris: [], keyUsage: ["keyCertSign"] }],
      leaf: {
        subject: "O=public",
        keyUsage: ["digitalSignature", "keyEncipherment"],
        uris: [id],
        dnsNames: ["app.default.svc.cluster.local"]
      }
    },
    Teleport: {
      root: {
        subject: "O=teleport.example,CN=teleport.example",
        uris,
        keyUsage: ["digitalSignature", ...signing]
      },
      leaf: { subject: "CN=api", keyUsage: ["digitalSignature", "keyEncipherment", "keyAgreement"], uris: [id] }
    },
    "an old root that signed itself over SHA-1": {
      root: { subject: "O=Example,CN=Example Root 2012", uris: [], keyAlgorithm: "RSA-2048", signatureHash: "SHA-1" },
      intermediates: [{ subject: "O=Example,CN=Issuing 2024", uris: [] }],
      leaf: { ...spireLeaf, keyAlgorithm: "P-256" }
    }
  }
}

const path = "/peer"

const arrange =
  (name: string): PeerCase["arrange"] =>
  (authority) =>
    Effect.gen(function* () {
      const { trustDomain } = authority
      const expects = authority.id(path)
      const template = templates(trustDomain, expects)[name]
      const root = yield* CertificateAuthority.makeRoot({ trustDomain, ...template?.root })
      const issuer = yield* Effect.reduce(template?.intermediates ?? [], root, (parent, profile) =>
        CertificateAuthority.makeIntermediate(parent, profile)
      )
      const credentials = yield* CertificateAuthority.issue(issuer, { keyAlgorithm: "P-256", ...template?.leaf })
      const bundle = yield* X509Bundle.fromDer(trustDomain, [root.certificate])
      return { credentials, bundles: X509BundleSet.of(bundle), expects }
    })

export const realAuthorityCases: ReadonlyArray<PeerCase> = Object.entries(templates("", "")).map(
  ([name, { verdict = "Accepted" }]) => ({
    name: `as issued by ${name}`,
    verdict,
    purpose: undefined,
    arrange: arrange(name)
  })
)
