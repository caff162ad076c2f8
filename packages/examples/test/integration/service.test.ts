import { join } from "node:path"
import { AuditLog, SecureChannel } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { WorkloadApi } from "@agentweave/workload-api"
import { NodeContext } from "@effect/platform-node"
import { expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { agent, asWorkload, directory, example, start } from "./programs.js"

it.scopedLive(
  "a service tells the orchestrator that it is ready, and on SIGTERM answers what is on its way first",
  () =>
    Effect.gen(function* () {
      const folder = yield* directory
      const { said: agentSaid } = yield* start(agent("api", "web"), folder)
      yield* agentSaid(/# spiffe:\/\/example\.org\/web$/)
      const service = yield* start(example("recipes/service"), folder, {
        PORT: "0",
        HEALTH_PORT: "0",
        ...asWorkload(folder, "api")
      })
      const portOf = (name: string) =>
        Effect.map(service.said(new RegExp(`^${name} listens on `)), (line) => line.split(" ").at(-1))
      const [api, health] = [yield* portOf("api"), yield* portOf("health")]

      const ask = (path: string) =>
        Effect.promise(async () => {
          const response = await fetch(`http://127.0.0.1:${health}${path}`)
          return { status: response.status, body: await response.text() }
        })
      expect(yield* ask("/healthz")).toEqual({ status: 200, body: "" })
      expect(yield* ask("/readyz")).toEqual({ status: 200, body: '{"ready":true,"freshness":"Fresh"}' })

      const endpoint = `unix://${join(folder, "web.sock")}`
      const services = yield* Layer.build(
        NodeConnector.layer.pipe(
          Layer.provideMerge(Layer.merge(WorkloadApi.layer({ endpoint }), AuditLog.layerMemory([])))
        )
      )
      const channel = yield* Effect.provide(
        SecureChannel.make({ peer: "spiffe://example.org/api", baseUrl: `https://127.0.0.1:${api}` }),
        services
      )
      const hello = yield* channel.get("/hello")
      expect(yield* hello.text).toBe("hello spiffe://example.org/web")
      const report = yield* Effect.fork(Effect.flatMap(channel.get("/report"), (response) => response.text))
      yield* service.said(/a report is made/)
      const stopped = yield* Effect.fork(service.process.kill("SIGTERM"))
      expect(yield* Fiber.join(report)).toBe("done")
      yield* Fiber.join(stopped)
      expect(yield* service.process.exitCode).toBe(0)
      expect(yield* Effect.flip(channel.get("/hello"))).toMatchObject({ _tag: "ConnectionError", reason: "Refused" })
    }).pipe(Effect.provide(NodeContext.layer))
)
