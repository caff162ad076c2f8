#!/usr/bin/env node
/**
 * `agentweave-audit-verify FILE|DIRECTORY... [--bundle FILE... --expect ID...] [--json]`
 *
 * @since 0.1.0
 */
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { run } from "./AuditVerify.js"
import { printable } from "./internal/printable.js"

const exit = (code: number) =>
  Effect.sync(() => {
    process.exitCode = code
  })

NodeRuntime.runMain(
  run(process.argv.slice(2)).pipe(
    Effect.matchEffect({
      onFailure: (error) =>
        Effect.zipRight(Console.error(error.message.split("\n").map(printable).join("\n")), exit(2)),
      onSuccess: ({ exitCode, output }) => Effect.zipRight(Console.log(output), exit(exitCode))
    }),
    Effect.provide(NodeContext.layer)
  ),
  { disableErrorReporting: true }
)
