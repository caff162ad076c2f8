/**
 * An SVID, its chain, and what will go wrong when. The program behind `agentweave svid show`.
 *
 * @since 0.1.0
 */
import { PeerMatcher, SpiffeId, X509BundleSet } from "@agentweave/spiffe"
import { ConnectionExplanation } from "@agentweave/transport-node"
import { FileSystem } from "@effect/platform"
import { Clock, Effect, Either } from "effect"
import { readBundle, readChain } from "./internal/certificateFiles.js"
import {
  type CertificateFacts,
  certificateLines,
  chainFacts,
  datesOf,
  type Foreseen,
  factsOf,
  foresee,
  foreseenLines,
  inOrder
} from "./internal/certificates.js"
import { fromWorkloadApi } from "./internal/identity.js"
import { printable } from "./internal/printable.js"
import type { Report } from "./internal/report.js"

/**
 * Where the SVIDs come from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** A PEM file, the SVID first. Default: what the Workload API delivers. */
  readonly cert?: string | undefined
  /** The bundle of its trust domain, PEM or a SPIFFE bundle document; without one the chain of a file is not verified. */
  readonly bundle?: string | undefined
  /** The Workload API. Default: what `SPIFFE_ENDPOINT_SOCKET` says. */
  readonly endpoint?: string | undefined
}

/** An SVID, as its source delivers it. */
interface Delivered {
  readonly chain: ReadonlyArray<Uint8Array>
  readonly hint: string | undefined
  readonly bundles: X509BundleSet.X509BundleSet | undefined
}

interface Shown {
  readonly spiffeId: string | null
  readonly hint?: string | undefined
  readonly chain: ReadonlyArray<CertificateFacts>
  /** Whether a peer with the same bundle accepts it in both roles; `null` without a bundle. */
  readonly verified: boolean | null
  readonly problems: ReadonlyArray<string>
  readonly ahead: ReadonlyArray<Foreseen>
}

const fromFiles = (cert: string, bundle: string | undefined) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const chain = yield* readChain(cert, yield* fs.readFileString(cert))
    const [leaf] = yield* chainFacts(chain)
    const id = SpiffeId.parse(leaf?.uris[0] ?? "")
    if (bundle === undefined || Either.isLeft(id)) return [{ chain, hint: undefined, bundles: undefined }]
    const authorities = yield* readBundle(SpiffeId.trustDomain(id.right), yield* fs.readFileString(bundle))
    return [{ chain, hint: undefined, bundles: X509BundleSet.of(authorities) }]
  })

const fromAgent = (endpoint: string | undefined) =>
  Effect.map(fromWorkloadApi(endpoint), ({ bundles, svids }) =>
    svids.map(({ certificates, hint }): Delivered => ({ chain: certificates, hint, bundles }))
  )

/** Why a peer with these bundles refuses it, in the role of a server or of a client. */
const refusals = (id: SpiffeId.SpiffeId, chain: ReadonlyArray<Uint8Array>, bundles: X509BundleSet.X509BundleSet) =>
  Effect.gen(function* () {
    const matcher = PeerMatcher.exactly(id)
    const problems: Array<string> = []
    for (const purpose of ["ServerAuth", "ClientAuth"] as const) {
      const { failure } = yield* ConnectionExplanation.explain({ chain, bundles, matcher, purpose })
      if (failure === undefined) continue
      const { expected, reason, rule, seen } = failure
      problems.push(
        `refused as a ${purpose === "ServerAuth" ? "server" : "client"}: ${reason} (${rule}): expected ${expected}, got ${seen}`
      )
    }
    return problems
  })

/** A successor is expected at half of an SVID's life, and overdue at two thirds. */
const overdue = (chain: ReadonlyArray<CertificateFacts>, now: number): ReadonlyArray<Foreseen> => {
  const from = Math.max(...chain.map(({ notBefore }) => Date.parse(notBefore)))
  const to = Math.min(...chain.map(({ notAfter }) => Date.parse(notAfter)))
  const at = from + ((to - from) * 2) / 3
  return at > now ? [foresee(at, now, "a successor is overdue (Stale)")] : []
}

const show = ({ bundles, chain, hint }: Delivered) =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const facts = yield* chainFacts(chain)
    const [leaf] = facts
    const id = SpiffeId.parse(leaf?.uris[0] ?? "")
    const problems = Either.isLeft(id) ? [`the leaf is no SVID: ${id.left.message}`] : []
    const outOfDate = facts.flatMap(({ notAfter, notBefore, role }) =>
      Date.parse(notAfter) < now
        ? [`the ${role.toLowerCase()} has expired`]
        : Date.parse(notBefore) > now
          ? [`the ${role.toLowerCase()} is not valid yet`]
          : []
    )
    const refused = Either.isLeft(id) || bundles === undefined ? [] : yield* refusals(id.right, chain, bundles)
    const own = Either.isLeft(id) ? undefined : bundles?.bundles.get(SpiffeId.trustDomain(id.right))
    const authorities = yield* Either.all((own?.authorities ?? []).map((der) => factsOf(der, "Authority")))
    const shown: Shown = {
      spiffeId: Either.isLeft(id) ? null : id.right,
      ...(hint === undefined || hint === "" ? undefined : { hint }),
      chain: facts,
      verified: bundles === undefined ? null : refused.length === 0,
      problems: [...problems, ...outOfDate, ...refused],
      ahead: inOrder([...overdue(facts, now), ...datesOf([...facts, ...authorities], now)])
    }
    return shown
  })

const lines = ({ ahead, chain, hint, problems, spiffeId, verified }: Shown): ReadonlyArray<string> => [
  `${printable(spiffeId ?? "no SPIFFE ID")}${hint === undefined ? "" : ` (hint ${printable(hint)})`}`,
  ...certificateLines(chain),
  verified === null
    ? "  not verified: give --bundle"
    : verified
      ? "  verified under the bundle of its trust domain, as a server and as a client"
      : "  NOT verified",
  ...problems.map((problem) => `  PROBLEM: ${printable(problem)}`),
  "  ahead:",
  ...foreseenLines(ahead).map((line) => `  ${line}`)
]

/**
 * Shows the SVID of a file, or each SVID of a Workload API. The exit code is 1 where one of them cannot be used now.
 *
 * @since 0.1.0
 * @category programs
 */
export const run = Effect.fnUntraced(function* ({ bundle, cert, endpoint }: Options) {
  const delivered: ReadonlyArray<Delivered> =
    cert === undefined ? yield* fromAgent(endpoint) : yield* fromFiles(cert, bundle)
  const svids = yield* Effect.forEach(delivered, show)
  return {
    exitCode: svids.every(({ problems }) => problems.length === 0) ? 0 : 1,
    text: svids.flatMap(lines).join("\n"),
    json: { svids }
  } satisfies Report
})
