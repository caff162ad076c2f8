/**
 * Why is a certificate accepted or refused? The program behind `agentweave-explain`.
 *
 * @since 0.1.0
 */
import type { X509Certificate } from "node:crypto"
import { isIP } from "node:net"
import { connect, type TLSSocket } from "node:tls"
import { parseArgs } from "node:util"
import {
  Explanation,
  PeerMatcher,
  type PeerVerifier,
  SpiffeBundle,
  SpiffeId,
  X509Bundle,
  X509BundleSet
} from "@agentweave/spiffe"
import { ConnectionExplanation } from "@agentweave/transport-node"
import { FileSystem } from "@effect/platform"
import { Effect } from "effect"
import { UsageError } from "./UsageError.js"

const usage = `usage: agentweave-explain (--cert FILE | --connect HOST:PORT) --bundle FILE --expect SPIFFE-ID
         [--role server|client] [--trust-domain NAME] [--json]

  --cert FILE          the peer's certificates, PEM, the leaf first
  --connect HOST:PORT  the certificates a server presents; nothing is sent to it
  --bundle FILE        the trust bundle, PEM or SPIFFE bundle JSON
  --trust-domain NAME  whose bundle it is, where it is not the expected ID's
  --role               the role the peer presents them in; default server`

const parse = (args: ReadonlyArray<string>) =>
  Effect.try({
    try: () =>
      parseArgs({
        args: [...args],
        options: {
          cert: { type: "string" },
          connect: { type: "string" },
          bundle: { type: "string" },
          expect: { type: "string" },
          role: { type: "string", default: "server" },
          "trust-domain": { type: "string" },
          json: { type: "boolean", default: false }
        }
      }).values,
    catch: (cause) => new UsageError({ message: `${cause instanceof Error ? cause.message : cause}\n${usage}` })
  })

/** The certificates of a PEM text, in their order, as they are: the explanation judges them. */
const certificatesOf = (pem: string): ReadonlyArray<Uint8Array> =>
  Array.from(pem.matchAll(/-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----/g), ([, body]) =>
    Buffer.from(body ?? "", "base64")
  )

/** The chain in a file; a file without a certificate is not what was asked for. */
const readChain = (path: string, pem: string): Effect.Effect<ReadonlyArray<Uint8Array>, UsageError> => {
  const chain = certificatesOf(pem)
  if (chain.length > 0) return Effect.succeed(chain)
  const [, label] = /-----BEGIN ([A-Z0-9 ]+)-----/.exec(pem) ?? []
  const got = label === undefined ? "none" : label.endsWith("PRIVATE KEY") ? "a private key" : `a block ${label}`
  return Effect.fail(new UsageError({ message: `expected PEM certificates in ${path}, got ${got}` }))
}

/** All that the server sent, in its order. */
const chainOf = (socket: TLSSocket): ReadonlyArray<Uint8Array> => {
  const chain: Array<Uint8Array> = []
  let certificate: X509Certificate | undefined = socket.getPeerX509Certificate()
  while (certificate !== undefined && chain.length < 11) {
    chain.push(certificate.raw)
    certificate = certificate.issuerCertificate
  }
  return chain
}

/**
 * The certificates that a server presents. The handshake is not a channel: whatever comes is accepted in order to be explained, not a byte
 * is sent over it, and it ends at once.
 */
const fetchChain = (address: string): Effect.Effect<ReadonlyArray<Uint8Array>, UsageError> => {
  const colon = address.lastIndexOf(":")
  const host = address.slice(0, colon).replace(/^\[|\]$/g, "")
  const port = Number(address.slice(colon + 1))
  if (colon < 1 || !Number.isInteger(port) || port < 1 || port > 65_535) {
    return Effect.fail(
      new UsageError({ message: `expected --connect HOST:PORT, got ${JSON.stringify(address)}\n${usage}` })
    )
  }
  return Effect.async<ReadonlyArray<Uint8Array>, UsageError>((resume) => {
    const socket = connect({ host, port, servername: isIP(host) === 0 ? host : "", rejectUnauthorized: false })
    const fail = (why: string) =>
      resume(Effect.fail(new UsageError({ message: `expected a TLS server at ${address}, got ${why}` })))
    socket.once("secureConnect", () => {
      const chain = chainOf(socket)
      socket.destroy()
      resume(Effect.succeed(chain))
    })
    socket.on("error", (cause) => fail(cause.message))
    socket.once("close", () => fail("a closed connection"))
    return Effect.sync(() => socket.destroy())
  }).pipe(
    Effect.timeoutFail({
      duration: "10 seconds",
      onTimeout: () => new UsageError({ message: `expected a TLS server at ${address}, got no answer in 10 seconds` })
    })
  )
}

const readBundle = (text: string, domain: ReturnType<typeof SpiffeId.trustDomain>) =>
  text.trimStart().startsWith("{")
    ? Effect.map(SpiffeBundle.parse(domain, text), ({ x509Bundle }) => x509Bundle)
    : X509Bundle.fromPem(domain, text)

/**
 * Explains what `args` name. `accepted` is what a connection would say, by the gate and by Node's TLS; `output` all of it, for people or with `--json` for programs.
 *
 * @since 0.1.0
 * @category programs
 */
export const run = Effect.fnUntraced(function* (args: ReadonlyArray<string>) {
  const values = yield* parse(args)
  const { bundle, cert, connect: address, expect, role } = values
  const roles: Readonly<Record<string, PeerVerifier.Purpose>> = { server: "ServerAuth", client: "ClientAuth" }
  const purpose = roles[role]
  if (
    bundle === undefined ||
    expect === undefined ||
    purpose === undefined ||
    (cert === undefined) === (address === undefined)
  ) {
    return yield* new UsageError({ message: usage })
  }
  const fs = yield* FileSystem.FileSystem
  const id = yield* SpiffeId.parse(expect)
  const domain =
    values["trust-domain"] === undefined ? id : yield* SpiffeId.parse(`spiffe://${values["trust-domain"]}/x`)
  const anchors = yield* readBundle(yield* fs.readFileString(bundle), SpiffeId.trustDomain(domain))
  const bundles = yield* X509BundleSet.make([anchors])
  const chain =
    cert === undefined ? yield* fetchChain(address ?? "") : yield* readChain(cert, yield* fs.readFileString(cert))
  const explanation = yield* ConnectionExplanation.explain({
    chain,
    bundles,
    matcher: PeerMatcher.exactly(id),
    purpose
  })
  return {
    accepted: explanation.accepted,
    output: values.json ? JSON.stringify(explanation) : Explanation.render(explanation)
  }
})
