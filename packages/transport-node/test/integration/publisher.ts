/** A publisher of a trust domain's bundle, over HTTPS on 127.0.0.1. */
import type { IncomingHttpHeaders } from "node:http"
import { createServer, type Server, type ServerOptions } from "node:https"
import type { AddressInfo } from "node:net"
import type { TLSSocket } from "node:tls"
import { SpiffeBundle, type X509Bundle } from "@agentweave/spiffe"
import type { Credentials } from "@agentweave/testkit"
import { Effect, Redacted } from "effect"

export interface Publisher {
  readonly url: string
  readonly requests: ReadonlyArray<{ readonly headers: IncomingHttpHeaders; readonly clientCertificate: boolean }>
  /** What is published from now on, and the certificate it is published with. */
  readonly publish: (body: string) => void
  readonly present: (credentials: Credentials.Credentials) => void
  readonly server: Server
}

const tlsOf = (credentials: Credentials.Credentials): ServerOptions => ({
  cert: credentials.certificatesPem,
  key: Redacted.value(credentials.privateKeyPem)
})

/** A bundle endpoint as the standard wants it: TLS, and no certificate asked of the client. */
export const startPublisher = Effect.fnUntraced(function* (
  credentials: Credentials.Credentials,
  initial: string,
  host: string
) {
  let body = initial
  const requests: Array<{ headers: IncomingHttpHeaders; clientCertificate: boolean }> = []
  const server = yield* Effect.acquireRelease(
    Effect.async<Server>((resume) => {
      const server = createServer(tlsOf(credentials), (request, response) => {
        const socket = request.socket as TLSSocket
        requests.push({ headers: request.headers, clientCertificate: "raw" in socket.getPeerCertificate() })
        response.setHeader("content-type", "application/json")
        response.end(body)
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.async<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )
  const publisher: Publisher = {
    url: `https://${host}:${(server.address() as AddressInfo).port}/bundle.json`,
    requests,
    publish: (next) => {
      body = next
    },
    present: (next) => server.setSecureContext(tlsOf(next)),
    server
  }
  return publisher
})

export const document = (x509Bundle: X509Bundle.X509Bundle, sequence: bigint): string =>
  SpiffeBundle.toJson(SpiffeBundle.make({ x509Bundle, sequence }))
