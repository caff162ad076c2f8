import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { NodeContext } from "@effect/platform-node"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { ended, example, started } from "./programs.js"

const agent = [
  fileURLToPath(new URL("../../../cli/src/main.ts", import.meta.url)),
  ...["dev-agent", "--trust-domain", "example.org"],
  ...["--socket", "api.sock", "--workload", "/api", "--socket", "web.sock", "--workload", "/web"]
]

const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "first-call-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)

it.scopedLive("the programs of the first call do what the guide says: a verified request, and a refusal", () =>
  Effect.gen(function* () {
    const folder = yield* directory
    const asWorkload = (name: string) => ({ SPIFFE_ENDPOINT_SOCKET: `unix://${join(folder, `${name}.sock`)}` })
    yield* started(agent, /# spiffe:\/\/example\.org\/web$/, folder)
    const listens = yield* started(example("first-call/api"), /^listens at /, folder, {
      PORT: "0",
      ...asWorkload("api")
    })
    const env = { API_URL: listens.replace("listens at ", ""), ...asWorkload("web") }

    const [call, other, stranger] = yield* Effect.all(
      [
        ended(example("first-call/web"), folder, env),
        ended(example("first-call/web"), folder, { ...env, API_ID: "spiffe://example.org/billing" }),
        ended(example("first-call/web"), folder, { ...env, ...asWorkload("api") })
      ],
      { concurrency: "unbounded" }
    )
    expect(call.exitCode).toBe(0)
    expect(call.output.split("\n")).toContain("200 hello spiffe://example.org/web")
    expect(other.exitCode).toBe(1)
    expect(other.output).toMatch(/PeerVerificationError: UnexpectedPeer: .*example.org\/billing.*example.org\/api/)
    expect(stranger.exitCode).toBe(1)
    expect(stranger.output).toContain("LocalCertificateRefused")
  }).pipe(Effect.provide(NodeContext.layer))
)
