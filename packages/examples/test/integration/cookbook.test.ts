import { tmpdir } from "node:os"
import { NodeContext } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { ended, example } from "./programs.js"

const lines = (name: string) =>
  Effect.map(ended(example(name), tmpdir(), {}), ({ exitCode, output }) => {
    expect(exitCode, output).toBe(0)
    return output.split("\n")
  }).pipe(Effect.provide(NodeContext.layer))

describe("a recipe of the cookbook runs as it says", () => {
  it.scopedLive("five patterns", () =>
    Effect.gen(function* () {
      // The third request is answered with 503, and is retried.
      expect(yield* lines("patterns/main")).toStrictEqual([
        'channel: {"requests":1}',
        'pool: {"requests":2}',
        'pool, breaker and retries: {"requests":4}',
        'retries: {"requests":5}',
        'open breaker: "from memory"'
      ])
    })
  )

  it.scopedLive("the same parts in another order", () =>
    Effect.gen(function* () {
      const said = (yield* lines("composition/main")).filter((line) => /^\w[\w ,]*: /.test(line))
      expect(said).toStrictEqual([
        "asked: apple 3",
        "told: pear 4",
        "service stopped, 1: apple 3",
        "service stopped, 2: apple 3",
        "service stopped, 3: apple 3",
        "breaker open: apple 3"
      ])
    })
  )

  it.scopedLive("other protocols and libraries", () =>
    Effect.gen(function* () {
      const said = (yield* lines("recipes/main")).filter((line) => !line.startsWith("["))
      expect(said).toStrictEqual([
        "HttpApi: invoice 42, read by spiffe://example.org/web",
        "RPC: 100,101,102",
        "WebSocket: hello spiffe://example.org/web,one",
        "gRPC: hello Ada, says spiffe://example.org/web",
        'Express: {"caller":"spiffe://example.org/web"}'
      ])
    })
  )

  it.scopedLive("OpenTelemetry", () =>
    Effect.gen(function* () {
      const said = yield* lines("opentelemetry")
      const [spans, metrics] = [said.indexOf("spans"), said.indexOf("metrics")]
      expect(said.slice(spans, metrics).join("\n")).toContain(" shopping ")
      expect(said.slice(metrics).join("\n")).toContain("transport_requests_total")
    })
  )
})
