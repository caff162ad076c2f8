/** Those who should not get in. They do not play by our rules, so most of them speak TLS themselves. */
import { connect } from "node:tls"
import { IdentityProvider, SpiffeId, type X509Context } from "@agentweave/spiffe"
import { type Credentials, DevAuthority } from "@agentweave/testkit"
import { SecureChannel } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { Effect, Layer, Redacted } from "effect"
import { apiId, layerAudit, say, trustDomain, webId } from "./story.js"

/** Calls with credentials of its own making; whether the server ever answered a byte of HTTP. */
const rawCall = (port: number, credentials: Credentials.Credentials | undefined) =>
  Effect.async<"answered" | "refused">((resume) => {
    const socket = connect({
      host: "127.0.0.1",
      port,
      rejectUnauthorized: false,
      ...(credentials && { cert: credentials.certificatesPem, key: Redacted.value(credentials.privateKeyPem) })
    })
    socket.once("secureConnect", () => socket.write("GET /hello HTTP/1.1\r\nhost: api\r\n\r\n"))
    socket.once("data", () => resume(Effect.succeed("answered")))
    socket.on("error", () => {})
    socket.once("close", () => resume(Effect.succeed("refused")))
    return Effect.sync(() => socket.destroy())
  })

/** An honest program with the wrong name: the right CA signed its SVID, but the server does not serve it. */
const impostor = (port: number, context: X509Context.X509Context) =>
  Effect.gen(function* () {
    const channel = yield* SecureChannel.make({ peer: apiId, baseUrl: `https://127.0.0.1:${port}` })
    const answer = yield* Effect.either(channel.get("/hello"))
    return answer._tag === "Right" ? "answered" : "refused"
  }).pipe(
    Effect.scoped,
    Effect.provide(
      NodeConnector.layer.pipe(
        Layer.provideMerge(layerAudit("impostor")),
        Layer.provideMerge(IdentityProvider.layerStatic(context))
      )
    )
  )

/**
 * Each intruder: who it is, what the server must say of it, and its attempt. Those that need the right CA's signature are
 * there when the authority is ours.
 */
export const intruders = (port: number, authority: DevAuthority.DevAuthority | undefined) =>
  Effect.gen(function* () {
    const foreign = yield* DevAuthority.make({ trustDomain })
    const web = SpiffeId.make(webId)
    const insiders =
      authority === undefined
        ? []
        : [
            {
              who: "an impostor: the right CA, the wrong ID",
              expected: "PeerVerificationError UnexpectedPeer",
              attempt: impostor(port, yield* authority.context({ path: "/impostor" }))
            },
            {
              who: "web's SVID, expired",
              expected: "PeerVerificationError Expired",
              attempt: rawCall(port, yield* authority.issueRaw({ id: web, validity: "Expired" }))
            }
          ]
    const cases = [
      ...insiders,
      {
        who: "a foreign CA that signed web's ID",
        expected: "PeerVerificationError UntrustedChain",
        attempt: rawCall(port, yield* foreign.issueRaw({ id: web }))
      },
      {
        who: "a client without certificate",
        expected: "PeerVerificationError NoCertificate",
        attempt: rawCall(port, undefined)
      }
    ]
    return cases.map((one) => ({
      ...one,
      attempt: Effect.tap(one.attempt, (result) => say("intruder", `${one.who}: ${result}`))
    }))
  })
