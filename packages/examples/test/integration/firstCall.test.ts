import { mkdtemp, rm } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Command } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { expect, it } from "@effect/vitest"
import { Deferred, Effect, Stream } from "effect"

const loader = createRequire(import.meta.url).resolve("tsx")
const example = (name: string) => [fileURLToPath(new URL(`../../src/first-call/${name}.ts`, import.meta.url))]
const agent = [
  fileURLToPath(new URL("../../../cli/src/main.ts", import.meta.url)),
  ...["dev-agent", "--trust-domain", "example.org"],
  ...["--socket", "api.sock", "--workload", "/api", "--socket", "web.sock", "--workload", "/web"]
]

const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "first-call-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)

/** A program of the guide in a process of its own, which ends with the scope, and all that it prints. */
const run = (program: ReadonlyArray<string>, folder: string, env: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function* () {
    const process_ = yield* Command.make(
      process.execPath,
      "--conditions=@agentweave/source",
      "--import",
      loader,
      ...program
    ).pipe(Command.workingDirectory(folder), Command.env(env), Command.start)
    const output = Stream.merge(process_.stdout, process_.stderr).pipe(Stream.decodeText(), Stream.splitLines)
    return { output, exitCode: process_.exitCode }
  })

/** Starts a program that goes on, and waits until it has said a sentence. */
const started = (
  program: ReadonlyArray<string>,
  sentence: RegExp,
  folder: string,
  env: Readonly<Record<string, string>> = {}
) =>
  Effect.gen(function* () {
    const { output } = yield* run(program, folder, env)
    const said = yield* Deferred.make<string, string>()
    const lines: Array<string> = []
    yield* output.pipe(
      Stream.runForEach((line) => {
        lines.push(line)
        return sentence.test(line) ? Deferred.succeed(said, line) : Effect.void
      }),
      Effect.zipRight(
        Effect.suspend(() => Deferred.fail(said, `${program.join(" ")} has ended:\n${lines.join("\n")}`))
      ),
      Effect.forkScoped
    )
    return yield* Deferred.await(said)
  })

/** Runs a program to its end. */
const ended = (program: ReadonlyArray<string>, folder: string, env: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const { exitCode, output } = yield* run(program, folder, env)
    return { output: Array.from(yield* Stream.runCollect(output)).join("\n"), exitCode: yield* exitCode }
  })

it.scopedLive("the programs of the first call do what the guide says: a verified request, and a refusal", () =>
  Effect.gen(function* () {
    const folder = yield* directory
    const asWorkload = (name: string) => ({ SPIFFE_ENDPOINT_SOCKET: `unix://${join(folder, `${name}.sock`)}` })
    yield* started(agent, /# spiffe:\/\/example\.org\/web$/, folder)
    const listens = yield* started(example("api"), /^listens at /, folder, { PORT: "0", ...asWorkload("api") })
    const env = { API_URL: listens.replace("listens at ", ""), ...asWorkload("web") }

    const [call, other, stranger] = yield* Effect.all(
      [
        ended(example("web"), folder, env),
        ended(example("web"), folder, { ...env, API_ID: "spiffe://example.org/billing" }),
        ended(example("web"), folder, { ...env, ...asWorkload("api") })
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
