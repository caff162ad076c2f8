import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parse, serve } from "@agentweave/cli/DevAgent"
import { IdentityProvider } from "@agentweave/spiffe"
import { WorkloadApi } from "@agentweave/workload-api"
import { expect, it } from "@effect/vitest"
import { Clock, Context, Effect, Layer, Option, Stream, TestClock } from "effect"

const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "dev-agent-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)

const identityAt = (endpoint: string, select?: WorkloadApi.Selection) =>
  Effect.map(Layer.build(WorkloadApi.layer({ endpoint, select })), Context.get(IdentityProvider.IdentityProvider))

it.scoped("the development agent serves each socket its own workloads, and renews them at half of their life", () =>
  Effect.gen(function* () {
    const folder = join(yield* directory, "made/by/it")
    const options = yield* parse([
      ...["--trust-domain", "dev.local", "--ttl", "1 minutes"],
      ...["--socket", join(folder, "web.sock"), "--workload", "/web", "--workload", "/shop"],
      ...["--socket", join(folder, "api.sock"), "--workload", "/api"]
    ])
    const [web, api] = yield* serve(options)
    expect(web?.ids).toStrictEqual(["spiffe://dev.local/web", "spiffe://dev.local/shop"])

    const identity = yield* identityAt(web?.endpoint ?? "")
    const first = yield* identity.x509Context
    expect(first.svids.map(({ spiffeId }) => spiffeId)).toStrictEqual(web?.ids)
    const shop = yield* identityAt(web?.endpoint ?? "", { hint: "shop" })
    expect((yield* shop.x509Context).svid.spiffeId).toBe("spiffe://dev.local/shop")
    const other = yield* (yield* identityAt(api?.endpoint ?? "")).x509Context
    expect(other.svids.map(({ spiffeId }) => spiffeId)).toStrictEqual(["spiffe://dev.local/api"])
    // One authority: they can verify each other.
    expect(other.bundles.generation).toBe(first.bundles.generation)

    const renewed = yield* Effect.fork(Stream.runHead(Stream.drop(identity.changes, 1)))
    yield* TestClock.adjust("30 seconds")
    const next = Option.getOrThrow(yield* renewed)
    expect(next.svid.notAfter).toBe(first.svid.notAfter + 30_000)
    expect(next.bundles.generation).toBe(first.bundles.generation)
  })
)

it.scoped("an SVID of the development agent is never stale, however short it lives", () =>
  Effect.gen(function* () {
    for (const ttl of ["2 seconds", "30 seconds", "10 minutes"]) {
      const socket = join(yield* directory, "web.sock")
      const [web] = yield* serve(yield* parse(["--ttl", ttl, "--socket", socket, "--workload", "/web"]))
      const identity = yield* identityAt(web?.endpoint ?? "")
      const { svid } = yield* identity.x509Context
      // Its successor comes at half of the life it was asked for, before two thirds of the whole have gone by.
      const issuedAt = yield* Clock.currentTimeMillis
      const renewedAt = issuedAt + (svid.notAfter - issuedAt) / 2
      expect(renewedAt).toBeLessThanOrEqual(svid.notBefore + ((svid.notAfter - svid.notBefore) * 2) / 3)
    }
  })
)

it.scoped("a directory that cannot be made is refused in words", () =>
  Effect.gen(function* () {
    const file = join(yield* directory, "file")
    yield* Effect.promise(() => writeFile(file, ""))
    const options = yield* parse(["--socket", join(file, "made/web.sock"), "--workload", "/web"])
    const error = yield* Effect.flip(serve(options))
    expect(error.message).toMatch(/^--socket: expected a directory .*made, or a place to create it in, got .*ENOTDIR/)
  })
)
