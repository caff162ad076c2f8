/**
 * The verdict of Node's OpenSSL on a chain, without a connection and without its private key. Node has no call for that, but TLS
 * 1.2 verifies a chain as soon as it has come, before its owner proves anything: the chain is handed to a TLS socket over no
 * network, with the few messages before it, and the handshake is never finished.
 */
import { generateKeyPairSync, sign, X509Certificate } from "node:crypto"
import { Duplex } from "node:stream"
import { connect, createSecureContext, type SecureContextOptions, TLSSocket } from "node:tls"
import type { Purpose } from "@agentweave/spiffe/PeerVerifier"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import { clientChain, clientHello, serverFlight } from "./handshakeBytes.js"
import { ciphers, secureOptions } from "./secureContext.js"

export interface VerdictInput {
  readonly chain: readonly [leaf: Uint8Array, ...rest: ReadonlyArray<Uint8Array>]
  /** PEM, one text a trust domain. */
  readonly ca: ReadonlyArray<string>
  /** The role in which the chain is presented. */
  readonly purpose: Purpose
}

const element = (tag: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const body = Buffer.concat(parts)
  const length = body.length < 0x80 ? [body.length] : [0x82, body.length >> 8, body.length & 0xff]
  return Buffer.concat([Buffer.of(tag, ...length), body])
}

const sequence = (...parts: ReadonlyArray<Uint8Array>): Buffer => element(0x30, ...parts)

/** A server needs a certificate before it looks at a client's. This one has no name, and nobody ever sees it. */
const ownCertificate = (): Pick<SecureContextOptions, "cert" | "key"> => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const ecdsaWithSha256 = sequence(Buffer.from("06082a8648ce3d040302", "hex"))
  const time = (text: string) => element(0x18, Buffer.from(text))
  const tbs = sequence(
    Buffer.from("a003020102020101", "hex"),
    ecdsaWithSha256,
    sequence(),
    sequence(time("20000101000000Z"), time("99991231235959Z")),
    sequence(),
    publicKey.export({ format: "der", type: "spki" })
  )
  const signature = element(0x03, Buffer.of(0), sign("sha256", tbs, privateKey))
  const der = sequence(tbs, ecdsaWithSha256, signature).toString("base64")
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${der}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ format: "pem", type: "pkcs8" })
  }
}

/** Read in Node 20 to 26: the handle of a TLS socket has `verifyError()`, which is null for a chain that was accepted. */
const readVerdict = (socket: TLSSocket): string | undefined => {
  const handle: unknown = Reflect.get(socket, "_handle")
  if (!Predicate.hasProperty(handle, "verifyError") || typeof handle.verifyError !== "function") {
    return "expected a TLS handle with verifyError, this version of Node has none"
  }
  const error: unknown = handle.verifyError()
  if (error === null || error === undefined) return undefined
  const code = Predicate.hasProperty(error, "code") ? ` (${error.code})` : ""
  return `${error instanceof Error ? error.message : error}${code}`
}

/** Turns of the event loop until the chain must have been looked at. */
const maxTurns = 100

/** Why OpenSSL refuses the chain; `undefined` when it accepts it. It is judged at the time of the machine's clock. */
export const opensslRefusal = ({ ca, chain, purpose }: VerdictInput): Effect.Effect<string | undefined> =>
  Effect.async((resume) => {
    let answered = false
    const isServer = purpose === "ClientAuth"
    const isRsa = new X509Certificate(chain[0]).publicKey.asymmetricKeyType === "rsa"
    const peer = new Duplex({
      read: () => {},
      write: (_chunk, _encoding, done) => {
        done()
        if (answered) return
        answered = true
        setImmediate(() => {
          peer.push(isServer ? clientChain(chain) : serverFlight(chain, isRsa))
          look(0)
        })
      }
    })
    const secureContext = createSecureContext({
      minVersion: "TLSv1.2",
      maxVersion: "TLSv1.2",
      ciphers,
      secureOptions,
      ca: [...ca],
      ...{ allowPartialTrustChain: true },
      ...(isServer ? ownCertificate() : undefined)
    })
    const socket = isServer
      ? new TLSSocket(peer, { isServer, requestCert: true, rejectUnauthorized: false, secureContext })
      : connect({ socket: peer, secureContext, rejectUnauthorized: false })
    const finish = (refusal: string | undefined): void => {
      socket.destroy()
      resume(Effect.succeed(refusal))
    }
    const look = (turn: number): void => {
      if (socket.destroyed) return
      if (Object.keys(socket.getPeerCertificate()).length > 0) finish(readVerdict(socket))
      else if (turn === maxTurns) finish("expected the chain to be judged, it was not")
      else setImmediate(() => look(turn + 1))
    }
    socket.on("error", (error) => finish(error.message))
    if (isServer) peer.push(clientHello)
    return Effect.sync(() => socket.destroy())
  })
