/**
 * A process that writes audit events until it is killed: `auditCrashChild.ts <audit file> <identity file>`. Each event that
 * was taken is acknowledged on standard output with its number and time, before the next one.
 */
import { readFileSync, writeSync } from "node:fs"
import * as IdentityProvider from "@agentweave/spiffe/IdentityProvider"
import * as TrustDomain from "@agentweave/spiffe/TrustDomain"
import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import * as X509BundleSet from "@agentweave/spiffe/X509BundleSet"
import * as X509Context from "@agentweave/spiffe/X509Context"
import * as X509Svid from "@agentweave/spiffe/X509Svid"
import { AuditLog } from "@agentweave/transport/AuditLog"
import * as NodeAuditLog from "@agentweave/transport-node/NodeAuditLog"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"

const [, , path = "", identityFile = ""] = process.argv
const { bundle, certificate, key } = JSON.parse(readFileSync(identityFile, "utf8"))

const identity = Either.getOrThrow(
  Either.gen(function* () {
    const svid = yield* X509Svid.fromDer({
      certificates: [Buffer.from(certificate, "base64")],
      privateKey: Redacted.make(Buffer.from(key, "base64"))
    })
    const anchors = yield* X509Bundle.fromDer(yield* TrustDomain.parse("example.org"), [Buffer.from(bundle, "base64")])
    return X509Context.make({ svid, bundles: X509BundleSet.of(anchors) })
  })
)

const load = Effect.gen(function* () {
  const log = yield* AuditLog
  let next = 0
  while (true) {
    let acknowledged = ""
    for (let n = 0; n < 20; n++) {
      const time = Date.now()
      const event = {
        _tag: "PoolExhausted",
        time,
        targetId: "spiffe://example.org/api",
        limit: "Total",
        maxConnections: next
      } as const
      if (log.unsafeRecord(event) !== undefined) break
      acknowledged += `${next} ${time}\n`
      next++
    }
    if (acknowledged !== "") writeSync(1, acknowledged)
    yield* Effect.sleep("1 millis")
  }
})

const Log = NodeAuditLog.layerFile({ path, flushWindow: "100 millis", checkpointEvery: 200 })

Effect.runFork(Effect.provide(load, Layer.provide(Log, IdentityProvider.layerStatic(identity))))
