#!/usr/bin/env node
/**
 * `agentweave-explain --cert FILE --bundle FILE --expect ID`, or `--connect HOST:PORT` in place of `--cert`.
 *
 * @since 0.1.0
 */
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { run } from "./Explain.js"

const exit = (code: number) =>
  Effect.sync(() => {
    process.exitCode = code
  })

NodeRuntime.runMain(
  run(process.argv.slice(2)).pipe(
    Effect.matchEffect({
      onFailure: (error) => Effect.zipRight(Console.error(error.message), exit(2)),
      onSuccess: ({ accepted, output }) => Effect.zipRight(Console.log(output), exit(accepted ? 0 : 1))
    }),
    Effect.provide(NodeContext.layer)
  ),
  { disableErrorReporting: true }
)
