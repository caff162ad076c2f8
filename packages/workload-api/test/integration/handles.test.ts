import { mkdtemp, rm } from "node:fs/promises"
import * as net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DevAuthority, FakeWorkloadApi } from "@agentweave/testkit"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as LiveProvider from "../support/liveProvider.js"

/** What keeps a process alive. */
const handles = Effect.sync(() => process.getActiveResourcesInfo().sort())

const turn = Effect.async<void>((resume) => {
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})

/** Waits for a turn of the event loop until a condition holds; the test's own time limit is the limit. */
const eventually = <A>(effect: Effect.Effect<A>, holds: (value: A) => boolean): Effect.Effect<A> =>
  Effect.repeat(Effect.zipLeft(effect, turn), { until: (value: A) => holds(value) })

const counts = (names: ReadonlyArray<string>, name: string): number => names.filter((other) => other === name).length

/** Waits until nothing is there that was not there before. */
const settled = (before: ReadonlyArray<string>) =>
  eventually(handles, (now) => now.every((name) => name === "Immediate" || counts(now, name) <= counts(before, name)))

it.scopedLive("nothing is left of a provider whose scope closed, nor of an agent", () =>
  Effect.gen(function* () {
    const before = yield* handles
    yield* Effect.scoped(
      Effect.gen(function* () {
        const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
        const agent = yield* FakeWorkloadApi.make()
        yield* agent.push(yield* authority.context())
        yield* Effect.scoped(
          Effect.gen(function* () {
            const provider = yield* LiveProvider.make({ endpoint: agent.endpoint })
            yield* provider.nextEvent("Updated")
            expect(yield* agent.connections).toBe(1)
            yield* agent.drop
            yield* provider.nextEvent("Disconnected")
          })
        )
        yield* eventually(agent.connections, (count) => count === 0)
      })
    )
    yield* settled(before)
  })
)

it.scopedLive("nor of one whose agent accepts the connection and never says a word", () =>
  Effect.gen(function* () {
    const before = yield* handles
    yield* Effect.scoped(
      Effect.gen(function* () {
        const directory = yield* Effect.acquireRelease(
          Effect.promise(() => mkdtemp(join(tmpdir(), "workload-api-silent-"))),
          (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
        )
        const socketPath = join(directory, "silent.sock")
        const sockets = new Set<net.Socket>()
        yield* Effect.acquireRelease(
          Effect.async<net.Server>((resume) => {
            const server = net.createServer((socket) => {
              sockets.add(socket.resume().on("close", () => sockets.delete(socket)))
            })
            server.listen(socketPath, () => resume(Effect.succeed(server)))
          }),
          (server) =>
            Effect.async<void>((resume) => {
              server.close(() => resume(Effect.void))
            })
        )
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* LiveProvider.make({ endpoint: `unix://${socketPath}` })
            yield* eventually(
              Effect.sync(() => sockets.size),
              (count) => count === 1
            )
          })
        )
        yield* eventually(
          Effect.sync(() => sockets.size),
          (count) => count === 0
        )
      })
    )
    yield* settled(before)
  })
)
