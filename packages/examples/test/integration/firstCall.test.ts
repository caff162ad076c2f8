import { NodeContext } from "@effect/platform-node"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { agent, asWorkload, directory, ended, example, start } from "./programs.js"

it.scopedLive("the programs of the first call do what the guide says: a verified request, and a refusal", () =>
  Effect.gen(function* () {
    const folder = yield* directory
    const { said: agentSaid } = yield* start(agent("api", "web"), folder)
    yield* agentSaid(/# spiffe:\/\/example\.org\/web$/)
    const api = yield* start(example("first-call/api"), folder, { PORT: "0", ...asWorkload(folder, "api") })
    const listens = yield* api.said(/^listens at /)
    const env = { API_URL: listens.replace("listens at ", ""), ...asWorkload(folder, "web") }

    const [call, other, stranger] = yield* Effect.all(
      [
        ended(example("first-call/web"), folder, env),
        ended(example("first-call/web"), folder, { ...env, API_ID: "spiffe://example.org/billing" }),
        ended(example("first-call/web"), folder, { ...env, ...asWorkload(folder, "api") })
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
