/** `npm run dev-agent`: a Workload API for development, with an authority of its own. Runs until it is told to end. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Either } from "effect"
import { serve } from "./dev-agent/agent.js"
import { parse, usage } from "./dev-agent/options.js"

const main = Effect.gen(function* () {
  const options = parse(process.argv.slice(2))
  if (Either.isLeft(options)) {
    console.error(`${options.left}\n\n${usage}`)
    process.exitCode = 2
    return
  }
  const served = yield* serve(options.right)
  for (const { endpoint, ids } of served) console.log(`SPIFFE_ENDPOINT_SOCKET=${endpoint}   # ${ids.join(", ")}`)
  yield* Effect.never
})

const orSay = Effect.catchAll(({ message }: Error) =>
  Effect.sync(() => {
    console.error(message)
    process.exitCode = 1
  })
)

NodeRuntime.runMain(Effect.scoped(orSay(main)))
