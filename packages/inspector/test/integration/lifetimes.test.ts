import { Activity, Inspector } from "@agentweave/inspector"
import { IdentityProvider, PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { AuditLog } from "@agentweave/transport"
import { NodeSecureServer } from "@agentweave/transport-node"
import { describe } from "@effect/vitest"
import { Config, Effect, Layer, Option } from "effect"
import { eachEnds, row } from "../../../spiffe/test/support/uninterruptible.js"
import { openStream } from "./http.js"
import { host, processOf } from "./world.js"

const process = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  return processOf(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
})

const read = Effect.flatMap(Inspector.Inspector, ({ snapshot }) => snapshot)

/** A stream that nobody closes, with a first snapshot read from it. */
const watch = Effect.gen(function* () {
  const { url } = yield* Inspector.Inspector
  const port = Number(new URL(Option.getOrElse(url, () => "")).port)
  yield* Effect.forkDaemon(Effect.scoped(Effect.flatMap(openStream({ port }), ({ ended }) => ended)))
  yield* Effect.scoped(Effect.flatMap(openStream({ port }), ({ next }) => next))
})

describe("every layer of the inspector", () => {
  eachEnds(new URL("../../src/", import.meta.url), [
    row("Activity.layerAuditLog", Effect.succeed(Activity.layerAuditLog(AuditLog.layerMemory([])))),
    row(
      "Inspector.layer",
      Effect.map(process, (services) => Inspector.layer({ port: 0 }).pipe(Layer.provide(services))),
      watch
    ),
    row(
      "Inspector.layerConfig",
      Effect.map(process, (services) =>
        Inspector.layerConfig({ port: Config.succeed(0) }).pipe(Layer.provide(services))
      ),
      watch
    ),
    row(
      "Inspector.layerService",
      Effect.map(process, (services) => Inspector.layerService().pipe(Layer.provide(services))),
      read
    ),
    row(
      "Inspector.layerSecure",
      Effect.map(process, (services) => {
        const authorize = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/operator"))
        return Inspector.layerSecure.pipe(
          Layer.provide(Inspector.layerService()),
          Layer.provide(NodeSecureServer.layer({ port: 0, host, authorize })),
          Layer.provide(services)
        )
      })
    )
  ])
})
