/** What is tried with each other implementation, and what must come of it. */
import type { X509Svid } from "@agentweave/spiffe"
import { Effect, type Scope } from "effect"
import { type ChildError, lines, peerLines, run } from "./child.js"
import * as Ours from "./ours.js"
import type { Peer } from "./tools.js"
import * as World from "./world.js"
import { writeFiles } from "./world.js"

export interface Scenario {
  readonly name: string
  /** What the outcome must be like. */
  readonly expected: RegExp
  readonly outcome: Effect.Effect<string, unknown, Scope.Scope>
}

/** Requests under load, while everything rotates. */
const many = 150

const serialOf = (svid: X509Svid.X509Svid): string => svid.serialNumber.toLowerCase().replace(/^0+/, "")

/** Runs something while SVIDs rotate five times and the root once. */
const whileRotating = <A, E, R>(world: World.World, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const rotations = Effect.gen(function* () {
      for (let rotation = 0; rotation < 5; rotation++) {
        yield* Effect.sleep("200 millis")
        yield* rotation === 2 ? world.rotateRoot : world.rotate
      }
    })
    const [result] = yield* Effect.all([effect, rotations], { concurrency: "unbounded" })
    return result
  })

/** The outcome that a peer's `get` reports. */
const got = (peer: Peer, flags: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const next = yield* peerLines(peer("get", flags))
    const { body = "", error, of = 0, ok = 0, problem = "" } = yield* next
    if (error !== undefined) return `failed: ${error}`
    return problem === "" ? `${ok} of ${of}: ${body}` : `${ok} of ${of}: ${problem}`
  })

/** A server of the other implementation; the answer is its URL. */
const served = (peer: Peer, flags: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const next = yield* peerLines(peer("serve", flags))
    const { error, url } = yield* next
    return url ?? `no URL: ${error}`
  })

/** Another implementation as a client of our Workload API, as a client of our server and as a server of our client. */
export const ofPeer = (label: string, peer: Peer, folder: string): ReadonlyArray<Scenario> => {
  const world = World.make(folder)
  const theirs = ({ endpoint }: World.Workload) => ({ endpoint })
  const scenario = (
    name: string,
    expected: RegExp,
    outcome: (world: World.World) => Effect.Effect<string, unknown, Scope.Scope>
  ): Scenario => ({ name: `${label}: ${name}`, expected, outcome: Effect.flatMap(world, outcome) })
  const oursIs = /^1 of 1: spiffe:\/\/interop\.test\/theirs$/
  return [
    scenario(
      "its X.509, bundle and JWT sources start on our Workload API",
      /^\/theirs, 1 authority, 0 JWT keys$/,
      (world) =>
        Effect.gen(function* () {
          const next = yield* peerLines(peer("sources", theirs(world.theirs)))
          const { authorities, error, id, jwtAuthorities } = yield* next
          return (
            error ?? `${id?.replace("spiffe://interop.test", "")}, ${authorities} authority, ${jwtAuthorities} JWT keys`
          )
        })
    ),
    scenario("its X.509 source sees three rotations", /^3 rotations$/, (world) =>
      Effect.gen(function* () {
        const next = yield* peerLines(peer("sources", theirs(world.theirs)))
        yield* next
        let seen = 0
        for (let rotation = 0; rotation < 3; rotation++) {
          yield* world.rotate
          const { serial } = yield* next
          if (serial === serialOf((yield* world.theirs.context).svid)) seen += 1
        }
        return `${seen} rotations`
      })
    ),
    scenario("client, our server", oursIs, (world) =>
      Effect.gen(function* () {
        const port = yield* Ours.serve(world.ours, world.theirs.id)
        return yield* got(peer, { ...theirs(world.theirs), peer: world.ours.id, url: `https://127.0.0.1:${port}/` })
      })
    ),
    scenario(
      `client, our server, ${many} connections while all rotates`,
      new RegExp(`^${many} of ${many}: `),
      (world) =>
        Effect.gen(function* () {
          const port = yield* Ours.serve(world.ours, world.theirs.id)
          const flags = { ...theirs(world.theirs), peer: world.ours.id, url: `https://127.0.0.1:${port}/` }
          const interval = label === "go-spiffe" ? "10ms" : "0.01"
          return yield* whileRotating(world, got(peer, { ...flags, count: `${many}`, interval, fresh: "" }))
        })
    ),
    scenario("client that expects another ID, our server", /^0 of 1: .*(unexpected ID|unexpected peer)/, (world) =>
      Effect.gen(function* () {
        const port = yield* Ours.serve(world.ours, world.theirs.id)
        return yield* got(peer, { ...theirs(world.theirs), peer: world.nobody, url: `https://127.0.0.1:${port}/` })
      })
    ),
    scenario("client that our server does not authorize", /^0 of 1: /, (world) =>
      Effect.gen(function* () {
        const port = yield* Ours.serve(world.ours, world.nobody)
        return yield* got(peer, { ...theirs(world.theirs), peer: world.ours.id, url: `https://127.0.0.1:${port}/` })
      })
    ),
    scenario("client with TLS 1.2 only, our server", /^0 of 1: .*protocol version/i, (world) =>
      Effect.gen(function* () {
        const port = yield* Ours.serve(world.ours, world.theirs.id)
        const flags = { peer: world.ours.id, url: `https://127.0.0.1:${port}/`, "max-tls": "1.2" }
        return yield* got(peer, { ...theirs(world.theirs), ...flags })
      })
    ),
    scenario("server, our client", /^1 of 1$/, (world) =>
      Effect.gen(function* () {
        const url = yield* served(peer, { ...theirs(world.theirs), peer: world.ours.id })
        return yield* Ours.get(world.ours, { url, peer: world.theirs.id })
      })
    ),
    scenario(`server, our client, ${many} connections while all rotates`, new RegExp(`^${many} of ${many}$`), (world) =>
      Effect.gen(function* () {
        const url = yield* served(peer, { ...theirs(world.theirs), peer: world.ours.id })
        return yield* whileRotating(world, Ours.get(world.ours, { url, peer: world.theirs.id, count: many }))
      })
    ),
    scenario("server with another ID than our client expects", /PeerVerificationError UnexpectedPeer$/, (world) =>
      Effect.gen(function* () {
        const url = yield* served(peer, { ...theirs(world.theirs), peer: world.ours.id })
        return yield* Ours.get(world.ours, { url, peer: world.nobody })
      })
    ),
    scenario(
      "server that does not authorize our client",
      label === "go-spiffe" ? /IdentityError LocalCertificateRefused$/ : /^0 of 1: status 403/,
      (world) =>
        Effect.gen(function* () {
          const url = yield* served(peer, { ...theirs(world.theirs), peer: world.nobody })
          return yield* Ours.get(world.ours, { url, peer: world.theirs.id })
        })
    ),
    scenario("server with TLS 1.2 only, our client", /ConnectionError ProtocolMismatch$/, (world) =>
      Effect.gen(function* () {
        const url = yield* served(peer, { ...theirs(world.theirs), peer: world.ours.id, "max-tls": "1.2" })
        return yield* Ours.get(world.ours, { url, peer: world.theirs.id })
      })
    )
  ]
}

const oneLine = (text: string): string => text.trim().replaceAll(/\s+/g, " ").slice(0, 160)

export const ofCurl = (folder: string): ReadonlyArray<Scenario> => {
  const curl = (extra: (files: { readonly cert: string; readonly key: string }) => ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const world = yield* World.make(folder)
      const files = yield* writeFiles(world, folder)
      const port = yield* Ours.serve(world.ours, world.theirs.id)
      const args = ["-sS", "--max-time", "10", "--cacert", files.ca, ...extra(files), `https://localhost:${port}/`]
      const { code, output } = yield* run({ command: "curl", args })
      return `exit ${code}: ${oneLine(output)}`
    })
  return [
    {
      name: "curl: our server",
      expected: /^exit 0: spiffe:\/\/interop\.test\/theirs$/,
      outcome: curl(({ cert, key }) => ["--cert", cert, "--key", key])
    },
    { name: "curl: without a certificate, our server", expected: /^exit (56|35|52|55): /, outcome: curl(() => []) },
    {
      name: "curl: TLS 1.2 only, our server",
      expected: /^exit 35: .*protocol version/,
      outcome: curl(({ cert, key }) => ["--tls-max", "1.2", "--cert", cert, "--key", key])
    }
  ]
}

const request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

/** The port a server of OpenSSL says it accepts on. */
const acceptPort = (next: Effect.Effect<string, ChildError>) =>
  Effect.map(next, (line) => /:(\d+)\s*$/.exec(line)?.[1] ?? "0")

export const ofOpenssl = (folder: string): ReadonlyArray<Scenario> => [
  {
    name: "openssl s_client: our server",
    expected: /^exit 0: .*HTTP\/1\.1 200 OK.*spiffe:\/\/interop\.test\/theirs/,
    outcome: Effect.gen(function* () {
      const world = yield* World.make(folder)
      const { ca, cert, key } = yield* writeFiles(world, folder)
      const port = yield* Ours.serve(world.ours, world.theirs.id)
      const args = ["s_client", "-connect", `127.0.0.1:${port}`, "-cert", cert, "-cert_chain", cert, "-key", key]
      const verify = ["-CAfile", ca, "-verify_return_error", "-quiet", "-ign_eof"]
      const { code, output } = yield* run({ command: "openssl", args: [...args, ...verify] }, { stdin: request })
      return `exit ${code}: ${output.trim().replaceAll(/\s+/g, " ")}`
    })
  },
  {
    name: "openssl s_server: our client",
    expected: /^1 of 1$/,
    outcome: Effect.gen(function* () {
      const world = yield* World.make(folder)
      const { ca, cert, key } = yield* writeFiles(world, folder)
      const args = [
        "s_server",
        "-accept",
        "127.0.0.1:0",
        "-cert",
        cert,
        "-cert_chain",
        cert,
        "-key",
        key,
        "-CAfile",
        ca
      ]
      const verify = ["-Verify", "3", "-verify_return_error", "-www"]
      const next = yield* lines({ command: "openssl", args: [...args, ...verify] }, (line) => line.startsWith("ACCEPT"))
      const url = `https://127.0.0.1:${yield* acceptPort(next)}`
      return yield* Ours.get(world.ours, { url, peer: world.theirs.id, expect: (body) => body.includes("s_server") })
    })
  }
]
