/** The address of a server, as the command line gives it. */
import { hostOf } from "@agentweave/transport/Wire"
import { Effect } from "effect"
import { UsageError } from "../UsageError.js"

/** `HOST:PORT`; an IPv6 address is in brackets. */
export const parseAddress = (
  text: string
): Effect.Effect<{ readonly host: string; readonly port: number }, UsageError> => {
  const colon = text.lastIndexOf(":")
  const host = hostOf(text.slice(0, colon))
  const port = Number(text.slice(colon + 1))
  return colon < 1 || !Number.isInteger(port) || port < 1 || port > 65_535
    ? Effect.fail(new UsageError({ message: `expected HOST:PORT, got ${JSON.stringify(text)}` }))
    : Effect.succeed({ host, port })
}
