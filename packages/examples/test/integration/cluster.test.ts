import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import { Command } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"

const loader = createRequire(import.meta.url).resolve("tsx")
const program = fileURLToPath(new URL("../../src/cluster.ts", import.meta.url))

it.scopedLive(
  "the cluster of the cookbook: one of three is killed under load, nothing acknowledged is lost, a fourth never joins",
  () =>
    Effect.gen(function* () {
      const node = Command.make(process.execPath, "--conditions=@agentweave/source", "--import", loader, program)
      const { exitCode, stderr, stdout } = yield* Command.start(node)
      const [lines, errors] = yield* Effect.all(
        [stdout, stderr].map((stream) => stream.pipe(Stream.decodeText(), Stream.splitLines, Stream.runCollect)),
        { concurrency: "unbounded" }
      )
      const said = Array.from(lines ?? [])
      expect(Array.from(errors ?? [])).toEqual([])
      expect(said.filter((line) => line.startsWith("ok "))).toEqual([
        "ok  the fourth is told why it cannot join",
        "ok  the fourth takes no entry",
        "ok  no acknowledged entry is lost",
        "ok  an answer of the killed runner is kept"
      ])
      expect(yield* exitCode).toBe(0)
    }).pipe(Effect.provide(NodeContext.layer))
)
