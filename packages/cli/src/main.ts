#!/usr/bin/env node
/**
 * `agentweave COMMAND ...`
 *
 * @since 0.1.0
 */
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { run } from "./Agentweave.js"

const { NO_COLOR: noColour } = process.env

NodeRuntime.runMain(
  run(process.argv.slice(2), {
    hasColours: process.stdout.isTTY && (noColour === undefined || noColour === ""),
    isWatched: process.stderr.isTTY,
    rows: () => (process.stdout.isTTY ? process.stdout.rows : undefined)
  }).pipe(
    Effect.flatMap((exitCode) =>
      Effect.sync(() => {
        process.exitCode = exitCode
      })
    ),
    Effect.provide(NodeContext.layer)
  )
)
