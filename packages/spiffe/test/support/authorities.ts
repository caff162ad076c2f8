import { X509Bundle } from "@agentweave/spiffe"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import type * as CertificateProfile from "@agentweave/testkit/CertificateProfile"
import { Effect } from "effect"
import { makeShared, verdict } from "./gate.js"

export type Authority = CertificateAuthority.CertificateAuthority

export const shared = makeShared()

export const bundleOf = (...authorities: ReadonlyArray<Uint8Array>) =>
  Effect.flatMap(shared, ({ trustDomain }) => X509Bundle.fromDer(trustDomain, authorities))

/** What the gate says of a leaf below `issuer`, trusting `anchors`. */
export const under = (
  issuer: Authority,
  anchors: ReadonlyArray<Uint8Array>,
  leaf: CertificateProfile.CertificateProfile = {},
  chain: ReadonlyArray<Uint8Array> = issuer.chain
) =>
  Effect.gen(function* () {
    const { certificates } = yield* CertificateAuthority.issue(CertificateAuthority.withChain(issuer, chain), leaf)
    return yield* verdict({ certificates, bundle: yield* bundleOf(...anchors) })
  })

export const makeRoot = (profile: CertificateProfile.CertificateProfile = {}) =>
  CertificateAuthority.makeRoot({ trustDomain: "example.org", ...profile })

/** A leaf below an intermediate with this about it, below a proper root. */
export const belowIntermediate = (
  profile: CertificateProfile.CertificateProfile,
  leaf: CertificateProfile.CertificateProfile = {}
) =>
  Effect.gen(function* () {
    const root = (yield* shared).roots[0]
    const issuer = yield* CertificateAuthority.makeIntermediate(root, profile)
    return yield* under(issuer, [root.certificate], leaf)
  })
