/** The command line of the development agent. */
import { parseArgs } from "node:util"
import { SpiffeId, TrustDomain } from "@agentweave/spiffe"
import { Duration, Either, Option } from "effect"

/** The workloads of one socket: the first workload's SVID is the default, each has its path's last segment as its hint. */
export interface Socket {
  readonly path: string
  readonly workloads: readonly [string, ...ReadonlyArray<string>]
}

export interface Options {
  readonly trustDomain: TrustDomain.TrustDomain
  readonly sockets: ReadonlyArray<Socket>
  readonly ttl: Duration.Duration
}

const flags = {
  "trust-domain": { type: "string" },
  ttl: { type: "string" },
  socket: { type: "string", multiple: true },
  workload: { type: "string", multiple: true }
} as const

/** Each socket with the workloads that follow it. */
const group = (
  given: ReadonlyArray<{ readonly name: string; readonly value: string }>
): Either.Either<ReadonlyArray<Socket>, string> => {
  const sockets: Array<{ readonly path: string; readonly workloads: Array<string> }> = []
  for (const { name, value } of given) {
    if (name === "socket") sockets.push({ path: value, workloads: [] })
    if (name !== "workload") continue
    const last = sockets.at(-1)
    if (last === undefined) return Either.left(`expected --socket before --workload ${value}`)
    last.workloads.push(value)
  }
  if (sockets.length === 0) return Either.left("expected --socket")
  return Either.all(
    sockets.map(({ path, workloads: [first, ...others] }) =>
      first === undefined
        ? Either.left(`expected --workload after --socket ${path}`)
        : Either.right<Socket>({ path, workloads: [first, ...others] })
    )
  )
}

/** Reads the arguments, or says what is wrong with them. */
export const parse = (args: ReadonlyArray<string>): Either.Either<Options, string> =>
  Either.gen(function* () {
    const { tokens, values } = yield* Either.try({
      try: () => parseArgs({ args: [...args], options: flags, strict: true, tokens: true }),
      catch: (error) => (error instanceof Error ? error.message : String(error))
    })
    const trustDomain = yield* Either.mapLeft(
      TrustDomain.parse(values["trust-domain"] ?? "dev.local"),
      (error) => `--trust-domain: ${error.message}`
    )
    const ttl = yield* Either.fromOption(
      Option.filter(Duration.decodeUnknown(values.ttl ?? "1 minutes"), Duration.greaterThanOrEqualTo("2 seconds")),
      () => `--ttl: expected a duration of at least 2 seconds such as "30 seconds", got ${JSON.stringify(values.ttl)}`
    )
    const sockets = yield* group(
      tokens.flatMap((token) => (token.kind === "option" ? [{ name: token.name, value: token.value ?? "" }] : []))
    )
    for (const workload of sockets.flatMap(({ workloads }) => workloads)) {
      yield* Either.mapLeft(
        SpiffeId.parse(`spiffe://${trustDomain}${workload}`),
        (error) => `--workload: ${error.message}`
      )
    }
    return { trustDomain, sockets, ttl }
  })
