/**
 * Why is a certificate accepted or refused? The program behind `agentweave-explain`.
 *
 * @since 0.1.0
 */
import type { X509Certificate } from "node:crypto"
import { isIP } from "node:net"
import { connect, type TLSSocket } from "node:tls"
import { parseArgs } from "node:util"
import { Explanation, PeerMatcher, type PeerVerifier, SpiffeId, TrustDomain, X509BundleSet } from "@agentweave/spiffe"
import { ConnectionExplanation } from "@agentweave/transport-node"
import { FileSystem } from "@effect/platform"
import { Effect } from "effect"
import * as ExplainRefusals from "./ExplainRefusals.js"
import { parseAddress } from "./internal/address.js"
import { readBundle, readChain } from "./internal/certificateFiles.js"
import { asciiJson, printable } from "./internal/printable.js"
import { UsageError } from "./UsageError.js"

const usage = `usage: agentweave-explain (--cert FILE | --connect HOST:PORT) --bundle FILE --expect SPIFFE-ID
         [--role server|client] [--trust-domain NAME] [--json]
       agentweave-explain --audit FILE... [--json]

  --cert FILE          the peer's certificates, PEM, the leaf first
  --connect HOST:PORT  the certificates a server presents; nothing is sent to it
  --bundle FILE        the trust bundle, PEM or SPIFFE bundle JSON
  --trust-domain NAME  whose bundle it is, where it is not the expected ID's
  --role               the role the peer presents them in; default server
  --audit FILE         an audit file: the connections that were refused; again for several`

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
          audit: { type: "string", multiple: true, default: [] },
          json: { type: "boolean", default: false }
        }
      }).values,
    catch: (cause) => new UsageError({ message: `${cause instanceof Error ? cause.message : cause}\n${usage}` })
  })

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
const fetchChain = (host: string, port: number): Effect.Effect<ReadonlyArray<Uint8Array>, UsageError> => {
  const address = `${host}:${port}`
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

/**
 * Explains what `args` name. `accepted` is what a connection would say, by the gate and by Node's TLS, or with `--audit` whether no
 * connection was refused; `output` all of it, for people or with `--json` for programs.
 *
 * @since 0.1.0
 * @category programs
 */
export const run = Effect.fnUntraced(function* (args: ReadonlyArray<string>) {
  const values = yield* parse(args)
  const { audit, bundle, cert, connect: address, expect, role } = values
  if (audit.length > 0) {
    if ([bundle, cert, address, expect].some((value) => value !== undefined))
      return yield* new UsageError({ message: `expected --audit without other files and addresses\n${usage}` })
    return yield* ExplainRefusals.run(audit, values.json)
  }
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
  const name = values["trust-domain"]
  const domain = name === undefined ? SpiffeId.trustDomain(id) : yield* TrustDomain.parse(name)
  const anchors = yield* readBundle(domain, yield* fs.readFileString(bundle))
  const bundles = yield* X509BundleSet.make([anchors])
  const chain =
    cert === undefined
      ? yield* Effect.flatMap(parseAddress(address ?? ""), ({ host, port }) => fetchChain(host, port))
      : yield* readChain(cert, yield* fs.readFileString(cert))
  const explanation = yield* ConnectionExplanation.explain({
    chain,
    bundles,
    matcher: PeerMatcher.exactly(id),
    purpose
  })
  return {
    accepted: explanation.accepted,
    output: values.json ? asciiJson(explanation) : Explanation.render(explanation).split("\n").map(printable).join("\n")
  }
})
