/** A plain HTTP server for the processes of this machine, and for no other. */
import { createServer } from "node:http"
import type * as HttpApp from "@effect/platform/HttpApp"
import type * as HttpServer from "@effect/platform/HttpServer"
import type { ServeError } from "@effect/platform/HttpServerError"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** Enough for eight streams and the requests beside them. */
const maxConnections = 64

/** Serves the app in the scope. What is still on its way when the scope ends is cut: it only shows a state. */
export const serve = (
  app: HttpApp.Default<never, Scope.Scope>,
  at: { readonly host: string; readonly port: number }
): Effect.Effect<HttpServer.Address, ServeError, Scope.Scope> =>
  Effect.gen(function* () {
    const server = createServer({ headersTimeout: 10_000, requestTimeout: 10_000, keepAliveTimeout: 5_000 })
    server.maxConnections = maxConnections
    const http = yield* NodeHttpServer.make(() => server, at)
    yield* http.serve(app)
    // Runs before the finalizers of the server above, which would wait for open streams.
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      })
    )
    return http.address
  })
