/** What must not be seen anywhere, over real sockets: private keys, header values, queries. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { IdentityProvider, PeerMatcher, type X509Context } from "@agentweave/spiffe"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { AuditLog, CapturedHeaders, PrometheusMetrics, SecureChannel } from "@agentweave/transport"
import { Connector as ConnectorTag } from "@agentweave/transport/Connector"
import * as TransportConfig from "@agentweave/transport/TransportConfig"
import { NodeAuditLog, NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Either, Exit, FastCheck, Layer, Logger, LogLevel, Redacted, Scope } from "effect"
import { holdsKey, printed } from "../../../transport/test/leaks.js"
import { makeTracer } from "../../../transport/test/recordingTracer.js"
import { host, realTime } from "./fixture.js"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "secrecy-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const keyOf = ({ svid }: X509Context.X509Context): Uint8Array =>
  Buffer.from(Redacted.value(svid.privateKey).export({ format: "jwk" }).d ?? "", "base64url")

const secret = FastCheck.hexaString({ minLength: 20, maxLength: 40 }).map((text) => `s3cr3t-${text}`)
const headerName = FastCheck.oneof(
  FastCheck.constantFrom("authorization", "cookie", "proxy-authorization", "x-api-key"),
  FastCheck.stringMatching(/^[a-z]{3,12}$/).map((name) => `x-${name}`)
)
const calls = FastCheck.array(
  FastCheck.record({
    headers: FastCheck.dictionary(headerName, secret, { minKeys: 1, maxKeys: 5 }),
    query: FastCheck.dictionary(FastCheck.stringMatching(/^[a-z]{1,8}$/), secret, { minKeys: 1, maxKeys: 3 })
  }),
  { minLength: 12, maxLength: 12 }
)

it.scoped("neither side's files, logs, metrics, spans or errors hold a key, a header value or a query", () =>
  Effect.gen(function* () {
    yield* realTime
    const dir = yield* folder
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const [webContext, apiContext] = [
      yield* authority.context({ path: "/web" }),
      yield* authority.context({ path: "/api" })
    ]
    const logged: Array<string> = []
    const quiet = Layer.merge(
      Logger.replace(
        Logger.defaultLogger,
        Logger.make((options) => {
          logged.push(Logger.jsonLogger.log(options), Logger.logfmtLogger.log(options))
        })
      ),
      Logger.minimumLogLevel(LogLevel.All)
    )
    const sinks = (name: string, context: X509Context.X509Context) =>
      Layer.provideMerge(
        AuditLog.layerTee(
          NodeAuditLog.layerFile({ path: join(dir, name), checkpointEvery: 5 }),
          Layer.provide(AuditLog.layerLogger, quiet)
        ),
        IdentityProvider.layerStatic(context)
      )
    const [calling, serving] = [makeTracer(), makeTracer()]
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const answer = HttpServerResponse.text("answer", { headers: { "set-cookie": "s3cr3t-of-the-server" } })
    const app = HttpRouter.empty.pipe(
      HttpRouter.get("/orders", Effect.withSpan(answer, "handler")),
      HttpRouter.get("/broken", Effect.die(new Error("s3cr3t-of-a-defect")))
    )
    const server = yield* HttpServer.serve(app).pipe(
      Layer.provideMerge(
        NodeSecureServer.layer({ port: 0, host, authorize: PeerMatcher.exactly(authority.id("/web")) })
      ),
      Layer.provide(sinks("api.ndjson", apiContext)),
      Layer.provide(quiet),
      Layer.provide(
        Layer.succeed(CapturedHeaders.CapturedHeaders, ["x-listed", "authorization", "cookie", "x-api-key"])
      ),
      Layer.buildWithScope(scope),
      Effect.withTracer(serving.tracer)
    )
    const { address } = Context.get(server, HttpServer.HttpServer)
    const port = address._tag === "TcpAddress" ? address.port : 0
    const client = yield* NodeConnector.layer.pipe(
      Layer.provide(sinks("web.ndjson", webContext)),
      Layer.provide(quiet),
      Layer.buildWithScope(scope)
    )
    const connect = (path: string) =>
      Context.get(client, ConnectorTag).connect({
        matcher: PeerMatcher.exactly(authority.id(path)),
        host,
        port,
        config: Either.getOrThrow(TransportConfig.make({})),
        onClose: () => {}
      })

    const [requests = []] = FastCheck.sample(calls, 1)
    const answers: Array<unknown> = []
    const send = (client: SecureChannel.SecureChannel, { headers, query }: (typeof requests)[number], n: number) =>
      Effect.gen(function* () {
        const path = ["/orders", "/absent", "/broken"][n % 3] ?? ""
        const target = `${path}?${new URLSearchParams(query)}`
        const response = yield* client.get(target, { headers: { ...headers, "x-listed": "shown" } })
        yield* response.text
      })
    const channel = yield* SecureChannel.make({ peer: authority.id("/api"), baseUrl: `https://${host}:${port}` }).pipe(
      Effect.provide(Layer.merge(Layer.succeedContext(client), IdentityProvider.layerStatic(webContext))),
      Scope.extend(scope)
    )
    yield* Effect.forEach(requests, (request, n) => send(channel, request, n), { discard: true }).pipe(
      Effect.provideService(CapturedHeaders.CapturedHeaders, ["x-listed", "authorization"]),
      Effect.withTracer(calling.tracer)
    )
    answers.push(yield* Effect.flip(Effect.scoped(connect("/other"))))
    const metrics = yield* PrometheusMetrics.text
    yield* Scope.close(scope, Exit.void)

    const outputs: ReadonlyArray<readonly [string, string]> = [
      ["the client's file", readFileSync(join(dir, "web.ndjson"), "utf8")],
      ["the server's file", readFileSync(join(dir, "api.ndjson"), "utf8")],
      ["the log", logged.join("\n")],
      ["the metrics", metrics],
      ["the client's spans", printed(calling.exported())],
      ["the server's spans", printed(serving.exported())],
      ["the errors", answers.map(printed).join("\n")],
      ["the identities", printed([webContext, apiContext])]
    ]
    const secrets = requests.flatMap(({ headers, query }) => [...Object.values(headers), ...Object.values(query)])
    for (const [name, text] of outputs) {
      expect(text.length, name).toBeGreaterThan(100)
      for (const one of [...secrets, "s3cr3t"]) expect(text.includes(one), `${name}: ${one}`).toBe(false)
      for (const context of [webContext, apiContext]) expect(holdsKey(text, keyOf(context)), name).toBe(false)
    }
    expect(outputs[0]?.[1].split('"path":"/').length).toBeGreaterThan(requests.length)
    for (const { recorded } of [calling, serving]) {
      const requested = recorded().filter(({ name }) => name === "GET")
      expect(requested).toHaveLength(requests.length)
      for (const { attributes } of requested) expect(attributes["http.request.header.x-listed"]).toBe("shown")
    }
  })
)
