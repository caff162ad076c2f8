import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"

/** The output of the child, which runs where no more than so many files may be open. */
const run = (descriptors: number): Effect.Effect<string> =>
  Effect.async((resume) => {
    const entry = fileURLToPath(new URL("./localFaultChild.ts", import.meta.url))
    const node = `exec "${process.execPath}" --conditions=@agentweave/source --import tsx "${entry}"`
    const child = spawn("sh", ["-c", `ulimit -n ${descriptors} && ${node}`], {
      stdio: ["ignore", "pipe", "inherit"],
      cwd: fileURLToPath(new URL(".", import.meta.url))
    })
    let output = ""
    child.stdout.on("data", (chunk) => {
      output += chunk
    })
    child.once("close", () => resume(Effect.succeed(output)))
    return Effect.sync(() => {
      child.kill("SIGKILL")
    })
  })

it.live(
  "a machine without a free file descriptor is a fault of its own: neither the peer's at the breaker, nor retried",
  () =>
    Effect.gen(function* () {
      expect(JSON.parse(yield* run(1_000))).toEqual({
        tag: "ConnectionError",
        reason: "LocalFault",
        state: "Closed",
        totalExcluded: 1,
        retries: 0
      })
    }),
  60_000
)
