/** The gate's verdicts on the catalogue of peers against those of another verifier. */
import { PeerMatcher, PeerVerifier } from "@agentweave/spiffe"
import { DevAuthority, PeerCase } from "@agentweave/testkit"
import { Clock, Effect, Either } from "effect"
import { ChildError, run } from "./child.js"
import type { Scenario } from "./scenarios.js"
import type { Peer } from "./tools.js"

/** What go-spiffe accepts and the gate refuses, each for a reason: see SECURITY.md. */
const stricter: ReadonlySet<string> = new Set([
  "a leaf without digitalSignature",
  "a leaf without key usage",
  "a leaf with an RSA-1024 key",
  "a leaf with an Ed448 key",
  "a leaf for servers only, as a client",
  "a leaf for clients only, as a server",
  "a leaf for code signing",
  "a leaf that states another authority key identifier",
  "a leaf with 129 names",
  "a leaf of 70 kB",
  "an ID without a path",
  "an ID of 2049 bytes",
  "an intermediate of another trust domain",
  "an intermediate with an RSA-1024 key",
  "a root with an RSA-1024 key",
  "a root for code signing",
  "an intermediate for code signing",
  "eleven certificates"
])

/** What the gate accepts and go-spiffe refuses. */
const laxer: ReadonlySet<string> = new Set(["a leaf with names of every form its intermediate is permitted"])

const base64 = (ders: ReadonlyArray<Uint8Array>): ReadonlyArray<string> =>
  ders.map((der) => Buffer.from(der).toString("base64"))

const arranged = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "interop.test" })
  return yield* Effect.forEach(PeerCase.all, (peer) =>
    Effect.gen(function* () {
      const { bundles, credentials, expects } = yield* peer.arrange(authority)
      const chain = credentials.certificates
      const verified = PeerVerifier.make().verify({
        chain,
        bundles,
        // Whom one expects is not part of the other verifier's question.
        matcher:
          peer.verdict === "UnexpectedPeer"
            ? PeerMatcher.memberOf(authority.trustDomain)
            : PeerMatcher.exactly(expects),
        purpose: peer.purpose ?? "ServerAuth",
        now: yield* Clock.currentTimeMillis
      })
      const trusted = Object.fromEntries(
        Array.from(bundles.bundles.values(), (bundle) => [bundle.trustDomain, base64(bundle.authorities)])
      )
      const line = JSON.stringify({ name: peer.name, chain: base64(chain), bundles: trusted })
      return { name: peer.name, accepted: Either.isRight(verified), line }
    })
  )
})

/** Each case judged by both; the outcome names the differences that are not known. */
export const ofVerifier = (label: string, peer: Peer): ReadonlyArray<Scenario> => [
  {
    name: `${label}: its verdicts on ${PeerCase.all.length} chains are the gate's, but for what is documented`,
    expected: /^the same, \d+ known differences$/,
    outcome: Effect.gen(function* () {
      const cases = yield* arranged
      const stdin = cases.map(({ line }) => `${line}\n`).join("")
      const { code, output } = yield* run(peer("verify", {}), { stdin })
      if (code !== 0) return yield* new ChildError({ message: output.slice(-300) })
      const theirs = new Map(
        output
          .trim()
          .split("\n")
          .map((line) => {
            const { id, problem }: { readonly id: string; readonly problem: string } = JSON.parse(line)
            return [id, problem] as const
          })
      )
      const differing = cases.filter(({ accepted, name }) => accepted !== (theirs.get(name) === ""))
      const unknown = differing.filter(({ accepted, name }) => !(accepted ? laxer : stricter).has(name))
      if (unknown.length === 0) return `the same, ${differing.length} known differences`
      return unknown
        .map(({ accepted, name }) => `${accepted ? "we accept" : "we refuse"} ${name}: ${theirs.get(name)}`)
        .join("; ")
    })
  }
]
