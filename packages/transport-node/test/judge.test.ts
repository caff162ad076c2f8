import type { TLSSocket } from "node:tls"
import { PeerMatcher, PeerVerifier } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Either } from "effect"
import { type Judge, judge } from "../src/internal/handshake.js"

interface Described {
  readonly raw?: Buffer
  readonly fingerprint256?: string
  issuerCertificate?: Described
}

/** A chain as Node describes it: each certificate with the next as its issuer. */
const describeChain = (certificates: ReadonlyArray<Uint8Array>): Described => {
  const described = certificates.map((der, i): Described => ({ raw: Buffer.from(der), fingerprint256: `${i}` }))
  for (const [i, certificate] of described.entries()) {
    const issuer = described[i + 1]
    if (issuer !== undefined) certificate.issuerCertificate = issuer
  }
  return described[0] ?? {}
}

/** A socket after its handshake, and how often its peer's certificates were asked for. */
const fakeSocket = (
  certificates: ReadonlyArray<Uint8Array>,
  state: { readonly resumed?: boolean; readonly authorized?: boolean } = {}
) => {
  const asked: Array<"leaf" | "chain"> = []
  const socket = {
    authorized: state.authorized ?? true,
    authorizationError: "CERT_UNTRUSTED",
    isSessionReused: () => state.resumed ?? false,
    getPeerCertificate: (detailed?: boolean) => {
      asked.push(detailed === true ? "chain" : "leaf")
      const { issuerCertificate, ...leaf } = describeChain(certificates)
      return detailed === true && issuerCertificate !== undefined ? { ...leaf, issuerCertificate } : leaf
    }
  }
  return { socket: socket as unknown as TLSSocket, asked }
}

const arrange = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
  const { bundles, svid } = yield* authority.context({ path: "/peer" })
  const now = yield* Clock.currentTimeMillis
  const by: Judge = {
    verifier: PeerVerifier.make(),
    bundles,
    matcher: PeerMatcher.exactly(svid.spiffeId),
    purpose: "ClientAuth",
    now: () => now
  }
  return { by, certificates: svid.certificates, id: svid.spiffeId }
})

const reason = (result: ReturnType<typeof judge>): string =>
  Either.match(result, { onLeft: (error) => error.reason, onRight: (peer) => peer.spiffeId })

describe("judge", () => {
  it.effect("takes the chain once for a leaf it has not seen, and the leaf alone ever after", () =>
    Effect.gen(function* () {
      const { by, certificates, id } = yield* arrange
      const first = fakeSocket(certificates)
      assert.strictEqual(reason(judge(first.socket, by)), id)
      assert.deepStrictEqual(first.asked, ["leaf", "chain"])
      const second = fakeSocket(certificates)
      assert.strictEqual(reason(judge(second.socket, by)), id)
      assert.deepStrictEqual(second.asked, ["leaf"])
    })
  )

  it.effect("refuses a resumed, an unauthorized and an anonymous peer, also when its leaf is known", () =>
    Effect.gen(function* () {
      const { by, certificates } = yield* arrange
      judge(fakeSocket(certificates).socket, by)
      assert.strictEqual(reason(judge(fakeSocket(certificates, { resumed: true }).socket, by)), "SessionResumed")
      assert.strictEqual(reason(judge(fakeSocket(certificates, { authorized: false }).socket, by)), "UntrustedChain")
      assert.strictEqual(reason(judge(fakeSocket([]).socket, by)), "NoCertificate")
    })
  )

  it.effect("refuses a known leaf that the matcher does not want", () =>
    Effect.gen(function* () {
      const { by, certificates, id } = yield* arrange
      judge(fakeSocket(certificates).socket, by)
      const matcher = PeerMatcher.oneOf([])
      assert.notStrictEqual(id, "")
      assert.strictEqual(reason(judge(fakeSocket(certificates).socket, { ...by, matcher })), "UnexpectedPeer")
    })
  )
})
