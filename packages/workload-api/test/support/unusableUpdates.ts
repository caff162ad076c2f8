import { CertificateAuthority, type Credentials, DevAuthority, KeyPair } from "@agentweave/testkit"
import { type WorkloadApiEvent, WorkloadMessage } from "@agentweave/workload-api"
import { Effect, Redacted } from "effect"
import { concat, messageOf, withFirst } from "./messages.js"

interface Given {
  readonly authority: DevAuthority.DevAuthority
  /** A good message of that authority. */
  readonly good: WorkloadMessage.X509SvidResponse
}

export interface UnusableUpdate {
  readonly title: string
  readonly reason: WorkloadApiEvent.DiscardReason
  /** A part of the description: what was expected or seen. */
  readonly says: string
  readonly bytes: (given: Given) => Effect.Effect<Uint8Array, unknown>
}

const encode = (message: WorkloadMessage.X509SvidResponse): Uint8Array =>
  Redacted.value(WorkloadMessage.encodeX509SvidResponse(message))

/** The SVID of credentials that no honest agent would deliver. */
const certified = (credentials: Credentials.Credentials): Partial<WorkloadMessage.X509SvidMessage> => ({
  x509Svid: concat(credentials.certificates),
  x509SvidKey: Redacted.make<Uint8Array>(
    Redacted.value(credentials.privateKey).export({ format: "der", type: "pkcs8" })
  )
})

/** The good message with an improper leaf. */
const withLeaf =
  (options: DevAuthority.IssueOptions) =>
  ({ authority, good }: Given) =>
    Effect.map(authority.issueRaw(options), (credentials) => encode(withFirst(good, certified(credentials))))

const altered =
  (change: (good: WorkloadMessage.X509SvidResponse) => WorkloadMessage.X509SvidResponse) =>
  ({ good }: Given) =>
    Effect.sync(() => encode(change(good)))

const first = (good: WorkloadMessage.X509SvidResponse): WorkloadMessage.X509SvidMessage =>
  good.svids[0] ?? { spiffeId: "", x509Svid: none, x509SvidKey: Redacted.make(none), bundle: none, hint: "" }

const none = new Uint8Array(0)

/** Cut in the middle: of a message, within its first SVID. */
const half = (bytes: Uint8Array): Uint8Array => bytes.subarray(0, Math.floor(bytes.length / 2))

/** For a provider that takes three authorities a bundle. */
export const unusableUpdates: ReadonlyArray<UnusableUpdate> = [
  {
    title: "garbage",
    reason: "Malformed",
    says: "offset 0",
    bytes: () => Effect.succeed(Uint8Array.of(0x0b, 0xff, 0xff))
  },
  {
    title: "half of a message",
    reason: "Malformed",
    says: "longer than what holds it",
    bytes: ({ good }) => Effect.sync(() => half(encode(good)))
  },
  {
    title: "no SVID",
    reason: "MissingField",
    says: "at least one SVID",
    bytes: altered((good) => ({ ...good, svids: [] }))
  },
  {
    title: "an empty message",
    reason: "MissingField",
    says: "at least one SVID",
    bytes: () => Effect.succeed(none)
  },
  {
    title: "an SVID without spiffe_id",
    reason: "MissingField",
    says: "spiffe_id",
    bytes: altered((good) => withFirst(good, { spiffeId: "" }))
  },
  {
    title: "an SVID without certificate",
    reason: "MissingField",
    says: "x509_svid",
    bytes: altered((good) => withFirst(good, { x509Svid: none }))
  },
  {
    title: "an SVID without key",
    reason: "MissingField",
    says: "x509_svid_key",
    bytes: altered((good) => withFirst(good, { x509SvidKey: Redacted.make(none) }))
  },
  {
    title: "an SVID without bundle",
    reason: "MissingField",
    says: "bundle",
    bytes: altered((good) => withFirst(good, { bundle: none }))
  },
  {
    title: "a spiffe_id that breaks the grammar",
    reason: "InvalidSpiffeId",
    says: "PathTrailingSlash",
    bytes: altered((good) => withFirst(good, { spiffeId: "spiffe://example.org/api/" }))
  },
  {
    title: "a spiffe_id that is not the certificate's",
    reason: "SpiffeIdMismatch",
    says: "expected a certificate for spiffe://example.org/admin, got one for spiffe://example.org/workload",
    bytes: altered((good) => withFirst(good, { spiffeId: "spiffe://example.org/admin" }))
  },
  {
    title: "a spiffe_id of another trust domain than the certificate's",
    reason: "SpiffeIdMismatch",
    says: "spiffe://example.com/workload",
    bytes: altered((good) => withFirst(good, { spiffeId: "spiffe://example.com/workload" }))
  },
  {
    title: "a key that does not match the certificate",
    reason: "InvalidSvid",
    says: "the key of another certificate",
    bytes: ({ authority, good }) =>
      Effect.map(authority.issueRaw(), (other) =>
        encode(withFirst(good, { x509SvidKey: certified(other).x509SvidKey ?? Redacted.make(none) }))
      )
  },
  {
    title: "a key that cannot be read",
    reason: "InvalidSvid",
    says: "the private key cannot be read",
    bytes: altered((good) =>
      withFirst(good, { x509SvidKey: Redacted.make(half(Redacted.value(first(good).x509SvidKey))) })
    )
  },
  {
    title: "a certificate that cannot be read",
    reason: "InvalidSvid",
    says: "SVID 1: certificates:",
    bytes: altered((good) => withFirst(good, { x509Svid: half(first(good).x509Svid) }))
  },
  {
    title: "a leaf that is a CA",
    reason: "InvalidSvid",
    says: "CA",
    bytes: withLeaf({ basicConstraints: { ca: true } })
  },
  {
    title: "a leaf that may sign certificates",
    reason: "InvalidSvid",
    says: "keyCertSign",
    bytes: withLeaf({ keyUsage: ["digitalSignature", "keyCertSign"] })
  },
  {
    title: "a leaf with two SPIFFE IDs",
    reason: "InvalidSvid",
    says: "2",
    bytes: withLeaf({ uris: ["spiffe://example.org/workload", "spiffe://example.org/admin"] })
  },
  {
    title: "an expired SVID",
    reason: "Expired",
    says: "spiffe://example.org/workload",
    bytes: withLeaf({ validity: "Expired" })
  },
  {
    title: "an SVID that its own bundle does not vouch for",
    reason: "InvalidSvid",
    says: "spiffe://example.org/workload",
    bytes: ({ authority, good }) =>
      Effect.gen(function* () {
        const impostor = yield* CertificateAuthority.makeImpostor(authority.issuer)
        const credentials = yield* CertificateAuthority.issue(impostor)
        return encode(withFirst(good, certified(credentials)))
      })
  },
  {
    title: "more certificates than a peer would read",
    reason: "LimitExceeded",
    says: "65536 bytes of certificates",
    bytes: altered((good) => {
      const { x509Svid } = first(good)
      return withFirst(good, {
        x509Svid: concat(Array.from({ length: Math.ceil(65_537 / x509Svid.length) }, () => x509Svid))
      })
    })
  },
  {
    title: "a second SVID that is unusable",
    reason: "SpiffeIdMismatch",
    says: "SVID 2",
    bytes: altered((good) => ({
      ...good,
      svids: [first(good), { ...first(good), spiffeId: "spiffe://example.org/x" }]
    }))
  },
  {
    title: "a bundle that cannot be read",
    reason: "InvalidBundle",
    says: "bundle of example.org",
    bytes: altered((good) => withFirst(good, { bundle: half(first(good).bundle) }))
  },
  {
    title: "a bundle without CA",
    reason: "InvalidBundle",
    says: "certificates that are no CA",
    bytes: altered((good) => withFirst(good, { bundle: first(good).x509Svid }))
  },
  {
    title: "a bundle with more authorities than allowed",
    reason: "LimitExceeded",
    says: "at most 3 certificates, got 4",
    bytes: ({ good }) =>
      Effect.gen(function* () {
        const keyPair = yield* KeyPair.make("P-256")
        const roots = yield* Effect.replicateEffect(
          CertificateAuthority.makeRoot({ trustDomain: "example.org", keyPair }),
          3
        )
        return encode(
          withFirst(good, { bundle: concat([first(good).bundle, ...roots.map(({ certificate }) => certificate)]) })
        )
      })
  },
  {
    title: "two SVIDs with different bundles for one trust domain",
    reason: "ConflictingBundles",
    says: "one bundle for example.org",
    bytes: ({ authority, good }) =>
      Effect.gen(function* () {
        const rotated = yield* authority.rotateRoot()
        const other = messageOf(yield* rotated.context())
        return encode({ ...good, svids: [...good.svids, ...other.svids] })
      })
  },
  {
    title: "more SVIDs than allowed",
    reason: "LimitExceeded",
    says: "at most 100 SVIDs",
    bytes: altered((good) => ({ ...good, svids: Array.from({ length: 101 }, () => first(good)) }))
  },
  {
    title: "more federated bundles than allowed",
    reason: "LimitExceeded",
    says: "at most 1000 federated bundles",
    bytes: altered((good) => ({
      ...good,
      federatedBundles: new Map(Array.from({ length: 1001 }, (_, index) => [`spiffe://partner${index}.org`, none]))
    }))
  }
]

/** A good update but for one federated bundle: the bundles it brings, and a part of what the event says. */
export interface UnusableBundle {
  readonly title: string
  readonly reason: WorkloadApiEvent.DiscardReason
  readonly says: string
  readonly trustDomain: string
  readonly bundles: (given: Given) => Effect.Effect<ReadonlyMap<string, Uint8Array>, unknown>
}

const partner = (der: Uint8Array) => Effect.succeed(new Map([["spiffe://partner.org", der]]))

const anchors = (issuer: DevAuthority.DevAuthority): Uint8Array => concat(issuer.bundle.authorities)

/** For a provider that takes three authorities a bundle. */
export const unusableBundles: ReadonlyArray<UnusableBundle> = [
  {
    title: "junk",
    reason: "InvalidBundle",
    says: "bundle of partner.org",
    trustDomain: "partner.org",
    bundles: () => partner(Uint8Array.of(0x30, 0x03, 0x01))
  },
  {
    title: "a certificate cut in the middle",
    reason: "InvalidBundle",
    says: "bundle of partner.org",
    trustDomain: "partner.org",
    bundles: ({ authority }) => partner(half(anchors(authority)))
  },
  {
    title: "a leaf in place of an authority",
    reason: "InvalidBundle",
    says: "certificates that are no CA",
    trustDomain: "partner.org",
    bundles: ({ good }) => partner(first(good).x509Svid)
  },
  {
    title: "one authority more than is allowed",
    reason: "LimitExceeded",
    says: "at most 3 certificates, got 4",
    trustDomain: "partner.org",
    bundles: () =>
      Effect.gen(function* () {
        const keyPair = yield* KeyPair.make("P-256")
        const roots = yield* Effect.replicateEffect(
          CertificateAuthority.makeRoot({ trustDomain: "partner.org", keyPair }),
          4
        )
        return yield* partner(concat(roots.map(({ certificate }) => certificate)))
      })
  },
  {
    title: "another bundle for our own trust domain",
    reason: "ConflictingBundles",
    says: "one bundle for example.org",
    trustDomain: "example.org",
    bundles: () =>
      Effect.map(
        DevAuthority.make({ trustDomain: "example.org" }),
        (other) => new Map([["spiffe://example.org", anchors(other)]])
      )
  },
  {
    title: "a bare name as its key",
    reason: "InvalidSpiffeId",
    says: `"partner.org"`,
    trustDomain: "partner.org",
    bundles: () => Effect.succeed(new Map([["partner.org", none]]))
  },
  {
    title: "a workload's SPIFFE ID as its key",
    reason: "InvalidSpiffeId",
    says: "spiffe://partner.org/web",
    trustDomain: "partner.org/web",
    bundles: () => Effect.succeed(new Map([["spiffe://partner.org/web", none]]))
  },
  {
    title: "a key that would steer a terminal",
    reason: "InvalidSpiffeId",
    says: "expected the SPIFFE ID of a trust domain",
    trustDomain: "partner?[2J?.org",
    bundles: () => Effect.succeed(new Map([["spiffe://partner\u001b[2J\n.org", none]]))
  }
]
