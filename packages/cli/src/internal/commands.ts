/** The commands of `agentweave`, each with its help. */
import { Args, Command, HelpDoc, Options } from "@effect/cli"
import { Effect, Either, Option } from "effect"
import * as AuditTail from "../AuditTail.js"
import * as AuditVerify from "../AuditVerify.js"
import * as DevAgent from "../DevAgent.js"
import * as Explain from "../Explain.js"
import * as Inspect from "../Inspect.js"
import * as Probe from "../Probe.js"
import * as ShowBundle from "../ShowBundle.js"
import * as ShowSvid from "../ShowSvid.js"
import { UsageError } from "../UsageError.js"
import { asciiJson } from "./printable.js"
import { answer, Output } from "./report.js"

const json = Options.boolean("json").pipe(Options.withDescription("the answer as JSON, errors too"))

const text = (name: string, description: string) => Options.text(name).pipe(Options.withDescription(description))

const optional = (name: string, description: string) =>
  Options.map(Options.optional(text(name, description)), Option.getOrUndefined)

const repeated = (name: string, description: string) => Options.repeated(text(name, description))

const endpoint = optional("endpoint", "the Workload API; default: what SPIFFE_ENDPOINT_SOCKET says")

const seconds = (what: string) =>
  Options.integer("timeout").pipe(Options.withDescription(`seconds ${what}`), Options.withDefault(10))

/** Where our own identity comes from. */
const ownIdentity = {
  cert: optional("cert", "our own SVID in files, with --key and --bundle"),
  key: optional("key", "its private key, PEM"),
  bundle: optional("bundle", "the bundle of our trust domain"),
  endpoint
}

/** An option of another program's command line. */
const given = (name: string, value: string | undefined): ReadonlyArray<string> =>
  value === undefined ? [] : [`--${name}=${value}`]

const flag = (name: string, value: boolean): ReadonlyArray<string> => (value ? [`--${name}`] : [])

/** A sentence for each command, for the list of commands. */
export const summaries = [
  ["dev-agent", "A Workload API for development, with an authority of its own."],
  ["explain", "Why is a peer accepted or refused, rule by rule?"],
  ["probe", "One verified request to a server: handshake, TLS, peer, timings."],
  ["inspect", "The state of a running process: identity, peers, requests, refusals."],
  ["svid show", "An SVID and its chain: ID, dates, keys, and what will go wrong when."],
  ["bundle show", "Trust bundles: their authorities, and when they expire."],
  ["audit verify", "Is an audit file as it was written?"],
  ["audit tail", "The last events of an audit file, and those that come."]
] as const

/** The summary of a command, then what else there is to know. */
const help = (command: (typeof summaries)[number][0], details: string, exitCodes: string) =>
  Command.withDescription(
    HelpDoc.blocks([
      HelpDoc.p(summaries.find(([name]) => name === command)?.[1] ?? ""),
      HelpDoc.p(details),
      HelpDoc.p(`Exit codes: ${exitCodes}.`)
    ])
  )

const devAgent = Command.make(
  "dev-agent",
  {
    trustDomain: optional("trust-domain", "of all SVIDs; default dev.local"),
    ttl: optional("ttl", 'life of an SVID, renewed at its half; default "1 minutes"'),
    socket: repeated("socket", "a Workload API on this Unix socket ..."),
    workload: repeated("workload", "... for the workload spiffe://NAME/PATH that is named behind it"),
    json
  },
  ({ json }) =>
    Effect.gen(function* () {
      const { args, print, progress } = yield* Output
      const parsed = DevAgent.parse(args.filter((arg) => arg !== "--json"))
      if (Either.isLeft(parsed)) return yield* new UsageError({ message: parsed.left })
      const served = yield* DevAgent.serve(parsed.right)
      if (json) yield* print(asciiJson({ sockets: served }))
      else {
        for (const { endpoint, ids } of served) yield* print(`SPIFFE_ENDPOINT_SOCKET=${endpoint}   # ${ids.join(", ")}`)
      }
      yield* progress("serves until it is interrupted")
      return yield* Effect.never
    }).pipe(Effect.scoped)
).pipe(
  help(
    "dev-agent",
    "--socket and --workload may be repeated: a workload belongs to the socket before it, and several after one socket are one workload with several SVIDs. A program that may open a socket is its workload.",
    "2 called wrongly, or a socket cannot be served"
  )
)

const explain = Command.make(
  "explain",
  {
    cert: optional("cert", "the peer's certificates, PEM, the leaf first"),
    connect: optional("connect", "HOST:PORT, the certificates a server presents; nothing is sent to it"),
    bundle: optional("bundle", "the trust bundle, PEM or SPIFFE bundle JSON"),
    expect: optional("expect", "the SPIFFE ID that is expected"),
    role: optional("role", "server or client: the role the peer presents them in; default server"),
    trustDomain: optional("trust-domain", "whose bundle it is, where it is not the expected ID's"),
    audit: repeated(
      "audit",
      "an audit file, in place of all the others: the connections that were refused; again for several"
    ),
    json
  },
  ({ audit, bundle, cert, connect, expect, json, role, trustDomain }) =>
    Explain.run([
      ...audit.flatMap((file) => given("audit", file)),
      ...given("cert", cert),
      ...given("connect", connect),
      ...given("bundle", bundle),
      ...given("expect", expect),
      ...given("role", role),
      ...given("trust-domain", trustDomain),
      ...flag("json", json)
    ]).pipe(
      Effect.map(({ accepted, output }) => ({ exitCode: accepted ? 0 : 1, text: output, json: parse(output, json) })),
      (report) => answer(report, json)
    )
).pipe(
  help(
    "explain",
    "For the certificates in a file, those that a server presents, or the refusals that audit files have on record. For a client that a server refused: --audit with the server's file says why; --cert CLIENT.pem --role client, and the server's bundle, say it rule by rule.",
    "0 accepted, or nothing was refused, 1 refused, 2 called wrongly"
  )
)

/** The JSON that a program has printed itself. */
const parse = (output: string, json: boolean): unknown => (json ? JSON.parse(output) : undefined)

const auditVerify = Command.make(
  "verify",
  {
    bundle: repeated(
      "bundle",
      "a trust bundle of the signers, PEM or SPIFFE bundle JSON; again for bundles of the past"
    ),
    expect: repeated("expect", "the workload that may have signed; again for several"),
    anchor: repeated("anchor", "what an anchor kept of the log; again for several"),
    json,
    paths: Args.repeated(Args.text({ name: "FILE|DIRECTORY" }))
  },
  ({ anchor, bundle, expect, json, paths }) =>
    Effect.gen(function* () {
      const { progress } = yield* Output
      yield* progress(`reads and verifies ${paths.join(", ")}`)
      const { exitCode, output } = yield* AuditVerify.run([
        ...bundle.flatMap((file) => given("bundle", file)),
        ...expect.flatMap((id) => given("expect", id)),
        ...anchor.flatMap((file) => given("anchor", file)),
        ...flag("json", json),
        "--",
        ...paths
      ])
      return { exitCode, text: output, json: parse(output, json) }
    }).pipe((report) => answer(report, json))
).pipe(
  help(
    "audit verify",
    "Takes the files of one log, or directories with the files of several.",
    "0 Verified, 1 Tampered, 2 called wrongly, 3 Unsigned, 4 SignerUnknown, 5 Incomplete"
  )
)

const auditTail = Command.make(
  "tail",
  {
    lines: Options.integer("lines").pipe(Options.withDefault(10), Options.withDescription("records to begin with")),
    follow: Options.boolean("follow").pipe(
      Options.withDescription("go on with the records that come, also when the file is full and another one begins")
    ),
    json,
    file: Args.text({ name: "FILE" })
  },
  (options) => Effect.flatMap(Output, ({ print }) => AuditTail.run(options, print))
).pipe(
  help(
    "audit tail",
    "A line each; nothing is verified. With --json each record as it is.",
    "0, or 2 when the file cannot be read"
  )
)

const svidShow = Command.make(
  "show",
  {
    cert: optional("cert", "a PEM file, the SVID first; default: what the Workload API delivers"),
    bundle: optional("bundle", "the bundle of its trust domain, with --cert: whether it verifies"),
    endpoint,
    json
  },
  ({ json, ...options }) => answer(ShowSvid.run(options), json)
).pipe(
  help(
    "svid show",
    "From a file, or each that the Workload API delivers.",
    "0 it can be used, 1 it cannot (the problems say why), 2 called wrongly, or there is none"
  )
)

const bundleShow = Command.make(
  "show",
  {
    trustDomain: optional("trust-domain", "whose bundle a file is"),
    endpoint,
    json,
    file: Args.optional(Args.text({ name: "FILE" }))
  },
  ({ file, json, ...options }) => answer(ShowBundle.run({ ...options, file: Option.getOrUndefined(file) }), json)
).pipe(
  help(
    "bundle show",
    "Of a file, PEM or SPIFFE bundle JSON, or each that the Workload API delivers.",
    "0 each has a valid authority, 1 one has none, 2 called wrongly, or there is none"
  )
)

const probe = Command.make(
  "probe",
  {
    expect: text("expect", "the SPIFFE ID that must be there"),
    path: Options.withDefault(text("path", "what to GET"), "/"),
    timeout: seconds("for the connection, and for the response"),
    ...ownIdentity,
    json,
    address: Args.text({ name: "HOST:PORT" })
  },
  ({ json, timeout, ...options }) =>
    Effect.gen(function* () {
      const { progress } = yield* Output
      yield* progress(`connects to ${options.address}`)
      return yield* Probe.run({ ...options, timeout: `${timeout} seconds` })
    }).pipe((report) => answer(report, json))
).pipe(
  help(
    "probe",
    "Our own identity comes from a Workload API or from files. A response of any status is an answer.",
    "0 a verified peer has answered, 1 refused or no answer, 2 called wrongly, or we have no identity"
  )
)

const inspect = Command.make(
  "inspect",
  {
    watch: Options.boolean("watch").pipe(Options.withDescription("go on with each snapshot that the inspector sends")),
    expect: optional("expect", "the SPIFFE ID of the process, with an https: URL"),
    timeout: seconds("for the connection, and for the first answer"),
    ...ownIdentity,
    json,
    url: Args.optional(Args.text({ name: "URL" }))
  },
  ({ json, timeout, url, watch, ...options }) =>
    Effect.gen(function* () {
      const { hasColours, print, progress, rows } = yield* Output
      const asked = { ...options, url: Option.getOrUndefined(url), timeout: `${timeout} seconds` } as const
      yield* progress(`asks ${asked.url ?? Inspect.defaultUrl}`)
      const report = watch
        ? Inspect.watch(asked, { hasColours, json, rows }, print)
        : Inspect.run(asked, { hasColours })
      return yield* answer(report, json)
    })
).pipe(
  help(
    "inspect",
    `URL is that of an inspector: http: on this machine (default ${Inspect.defaultUrl}), or https: on a secure server, with --expect. The JSON is the inspector's own; with --watch a line for each snapshot.`,
    "0 shown, 1 no inspector has answered, or it has ended, 2 called wrongly, or we have no identity"
  )
)

const group = (name: string, description: string) => Command.make(name).pipe(Command.withDescription(description))

/** The whole command. */
export const agentweave = group(
  "agentweave",
  "Tools for services with SPIFFE identities. `agentweave COMMAND --help` explains a command and its exit codes."
).pipe(
  Command.withSubcommands([
    devAgent,
    explain,
    probe,
    inspect,
    group("svid", "Our own SVIDs.").pipe(Command.withSubcommands([svidShow])),
    group("bundle", "Trust bundles.").pipe(Command.withSubcommands([bundleShow])),
    group("audit", "Audit files.").pipe(Command.withSubcommands([auditVerify, auditTail]))
  ])
)
