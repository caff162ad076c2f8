/**
 * Trust bundles: their authorities, and when they cease to vouch for anybody. The program behind `agentweave bundle show`.
 *
 * @since 0.1.0
 */
import { SpiffeBundle, TrustDomain, X509Bundle } from "@agentweave/spiffe"
import { FileSystem } from "@effect/platform"
import { Clock, Duration, Effect, Either } from "effect"
import { certificateLines, datesOf, factsOf, foreseenLines, inOrder } from "./internal/certificates.js"
import { fromWorkloadApi } from "./internal/identity.js"
import { printable } from "./internal/printable.js"
import type { Report } from "./internal/report.js"
import { UsageError } from "./UsageError.js"

/**
 * Where the bundles come from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** A file, PEM or a SPIFFE bundle document. Default: the bundles that the Workload API delivers. */
  readonly file?: string | undefined
  /** The trust domain of the bundle; a file does not say it. */
  readonly trustDomain?: string | undefined
  /** The Workload API. Default: what `SPIFFE_ENDPOINT_SOCKET` says. */
  readonly endpoint?: string | undefined
}

interface Delivered {
  readonly bundle: X509Bundle.X509Bundle
  readonly sequence?: string | undefined
  readonly refreshHintSeconds?: number | undefined
}

const fromFile = (file: string, trustDomain: string | undefined) =>
  Effect.gen(function* () {
    if (trustDomain === undefined) {
      return yield* new UsageError({
        message: `expected --trust-domain with ${file}: a bundle does not say whose it is`
      })
    }
    const domain = yield* TrustDomain.parse(trustDomain)
    const fs = yield* FileSystem.FileSystem
    const text = yield* fs.readFileString(file)
    if (!text.trimStart().startsWith("{")) return { bundle: yield* X509Bundle.fromPem(domain, text) }
    const document = yield* SpiffeBundle.parse(domain, text)
    return documentOf(document)
  })

const documentOf = ({ refreshHint, sequence, x509Bundle }: SpiffeBundle.SpiffeBundle): Delivered => ({
  bundle: x509Bundle,
  ...(sequence === undefined ? undefined : { sequence: String(sequence) }),
  ...(refreshHint === undefined ? undefined : { refreshHintSeconds: Duration.toSeconds(refreshHint) })
})

const show = ({ bundle, ...rest }: Delivered) =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const authorities = yield* Either.all(bundle.authorities.map((der) => factsOf(der, "Authority")))
    const isValid = authorities.some(
      ({ notAfter, notBefore }) => Date.parse(notBefore) <= now && now <= Date.parse(notAfter)
    )
    const leftOut = X509Bundle.describeLeftOut(bundle)
    return {
      trustDomain: bundle.trustDomain,
      generation: bundle.generation,
      ...rest,
      authorities,
      problems: [
        ...(isValid ? [] : ["no authority is valid now: nobody of this trust domain can be verified"]),
        ...(leftOut === undefined ? [] : [leftOut])
      ],
      isValid,
      ahead: inOrder(datesOf(authorities, now))
    }
  })

/**
 * Shows the bundle of a file, or each bundle of a Workload API. The exit code is 1 where one of them vouches for nobody now.
 *
 * @since 0.1.0
 * @category programs
 */
export const run = Effect.fnUntraced(function* ({ endpoint, file, trustDomain }: Options) {
  const delivered: ReadonlyArray<Delivered> =
    file === undefined
      ? Array.from((yield* fromWorkloadApi(endpoint)).bundles.bundles.values(), (bundle) => ({ bundle }))
      : [yield* fromFile(file, trustDomain)]
  const shown = yield* Effect.forEach(delivered, show)
  const lines = shown.flatMap(
    ({ ahead, authorities, generation, problems, refreshHintSeconds, sequence, trustDomain }) => [
      `${trustDomain}, generation ${generation.slice(0, 16)}${sequence === undefined ? "" : `, sequence ${sequence}`}${refreshHintSeconds === undefined ? "" : `, to be fetched again after ${refreshHintSeconds} s`}`,
      ...certificateLines(authorities),
      ...problems.map((problem) => `  PROBLEM: ${printable(problem)}`),
      "  ahead:",
      ...foreseenLines(ahead).map((line) => `  ${line}`)
    ]
  )
  return {
    exitCode: shown.every(({ isValid }) => isValid) ? 0 : 1,
    text: lines.join("\n"),
    json: { bundles: shown.map(({ isValid: _, ...rest }) => rest) }
  } satisfies Report
})
