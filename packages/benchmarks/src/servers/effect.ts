import { createServer } from "node:https"
import { IdentityProvider } from "@agentweave/spiffe"
import { PeerIdentity } from "@agentweave/transport"
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Effect, Layer, ManagedRuntime } from "effect"
import type { ServerSubject } from "../harness/Benchmark.js"
import { clientId, contextOf } from "../harness/credentials.js"
import { tlsOptions } from "../harness/tls.js"
import { small } from "./plain.js"
import { serveSecurely } from "./secure.js"

/** One app for both servers; where there is a verified caller it is looked at. */
const app = <R>(caller: Effect.Effect<string, never, R>) => {
  const answer = Effect.map(caller, (id) =>
    id === clientId ? HttpServerResponse.unsafeJson(small) : HttpServerResponse.empty({ status: 403 })
  )
  return HttpServer.serve(HttpRouter.empty.pipe(HttpRouter.get("/json", answer), HttpRouter.post("/json", answer)))
}

/** Effect's own server over the same TLS, which knows of its clients only that TLS let them in. */
export const effectServer: ServerSubject = {
  start: async ({ credentials }) => {
    const server = NodeHttpServer.layer(
      () =>
        createServer({
          ...tlsOptions(credentials, credentials.server),
          requestCert: true,
          rejectUnauthorized: true,
          keepAliveTimeout: 60_000
        }),
      { port: 0, host: "127.0.0.1" }
    )
    const runtime = ManagedRuntime.make(Layer.provideMerge(app(Effect.succeed<string>(clientId)), server))
    const { address } = await runtime.runPromise(HttpServer.HttpServer)
    if (address._tag !== "TcpAddress") throw new Error("expected a TCP address")
    return { port: address.port }
  }
}

export const secureServer = (audit: "file" | "memory"): ServerSubject => ({
  start: ({ credentials }) =>
    serveSecurely(
      IdentityProvider.layerStatic(contextOf(credentials, credentials.server)),
      app(Effect.map(PeerIdentity.caller, (peer): string => peer.spiffeId)),
      audit
    )
})
