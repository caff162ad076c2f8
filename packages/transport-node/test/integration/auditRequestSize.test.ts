/** The space that requests of a real connection take in the audit files of its two sides. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { IdentityProvider, PeerMatcher } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { SecureChannel } from "@agentweave/transport"
import { NodeAuditLog, NodeConnector, NodeSecureServer } from "@agentweave/transport-node"
import { HttpServer, HttpServerResponse } from "@effect/platform"
import { expect, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { problemsOf } from "../auditReports.js"
import { folder } from "./auditEvents.js"
import { host, realTime } from "./fixture.js"

const requests = 500

it.scoped("a request takes no more than 350 bytes, all that is on record of its connection and its log included", () =>
  Effect.gen(function* () {
    yield* realTime
    const dir = yield* folder
    const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
    const workload = (name: string) =>
      Effect.map(authority.context({ path: `/${name}` }), (context) => {
        const identity = IdentityProvider.layerStatic(context)
        const audit = NodeAuditLog.layerFile({ path: join(dir, `${name}.ndjson`) })
        return Layer.merge(identity, Layer.provide(audit, identity))
      })
    const api = yield* workload("api")
    const web = yield* workload("web")
    yield* Effect.scoped(
      Effect.gen(function* () {
        const services = yield* HttpServer.serve(Effect.succeed(HttpServerResponse.text("ok"))).pipe(
          Layer.provideMerge(
            NodeSecureServer.layer({ port: 0, host, authorize: PeerMatcher.exactly(authority.id("/web")) })
          ),
          Layer.provide(api),
          Layer.build
        )
        const { address } = Context.get(services, HttpServer.HttpServer)
        const port = address._tag === "TcpAddress" ? address.port : yield* Effect.dieMessage("expected a TCP address")
        yield* Effect.gen(function* () {
          const channel = yield* SecureChannel.make({
            peer: authority.id("/api"),
            baseUrl: `https://${host}:${port}`
          })
          for (let n = 0; n < requests; n++) {
            yield* Effect.flatMap(channel.get(`/v1/invoices/${n}`), (response) => response.text)
          }
        }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(NodeConnector.layer, web)))
      })
    )
    for (const name of ["web", "api"]) {
      const text = readFileSync(join(dir, `${name}.ndjson`), "utf8")
      expect(text.match(/"_tag":"RequestEnded"/g)).toHaveLength(requests)
      expect(text).not.toContain("RequestStarted")
      expect(text.length / requests).toBeLessThanOrEqual(350)
      expect(problemsOf(text)).toEqual([])
    }
  })
)
