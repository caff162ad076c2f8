/**
 * An `https.Agent` whose every connection is verified, for libraries that speak HTTP by Node's own client and take an agent.
 *
 * @since 0.1.0
 */
import type { Agent } from "node:https"
import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import { decoder, NumberIn } from "@agentweave/spiffe/OptionsDecoder"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import type { Connector } from "@agentweave/transport/Connector"
import { InvalidConfigError } from "@agentweave/transport/InvalidConfigError"
import * as SecureSocket from "@agentweave/transport/SecureSocket"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { SecureAgent } from "./internal/socket/agent.js"
import * as Opener from "./internal/socket/opener.js"

/**
 * The peer that must be at the other end, and the origin that requests may go to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The SPIFFE ID that must be at the other end of every connection, or a matcher that accepts it. */
  readonly peer: string | PeerMatcher.PeerMatcher
  /**
   * The one origin that requests may go to, as `https://billing.internal:8443`: one to another origin, by a redirect for
   * instance, fails with `ConnectionError` (reason `NoAddress`). Without it, the peer is required wherever a request leads.
   */
  readonly origin?: string | undefined
  /** Connections to an origin at a time; further requests wait. Default: no limit. */
  readonly maxSockets?: number | undefined
  /** Idle connections to an origin that are kept. Default 256, as Node has it. */
  readonly maxFreeSockets?: number | undefined
  /** `connectTimeout`, `maxConnectionAge`, `tlsMinVersion` and `tlsMaxVersion` hold; the rest is of channels. */
  readonly config?: TransportConfig.Options | undefined
}

const decode = decoder(
  "NodeSecureAgent",
  Schema.Struct({
    peer: Schema.Unknown,
    origin: Schema.optional(Schema.Unknown),
    maxSockets: Schema.optional(NumberIn(1)),
    maxFreeSockets: Schema.optional(NumberIn(0)),
    config: Schema.optional(Schema.Unknown)
  })
)

const readOrigin = (origin: string | undefined): Either.Either<URL | undefined, InvalidConfigError> => {
  if (origin === undefined) return Either.right(undefined)
  const url = URL.canParse(origin) ? new URL(origin) : undefined
  if (url?.protocol === "https:" && url.href === `${url.origin}/`) return Either.right(url)
  const description = `expected an https: origin such as "https://api.internal:8443", got ${JSON.stringify(origin)}`
  return Either.left(new InvalidConfigError({ config: "NodeSecureAgent", field: "origin", description }))
}

/**
 * An agent for `https.request` and what is built on it. Its sockets are verified connections: mutual TLS, the peer's SPIFFE ID
 * matched before a byte of a request is written. TLS options of a request (`ca`, `cert`, `rejectUnauthorized`,
 * `checkServerIdentity`, …) have no effect. A refused peer, or a connection that ended with its credentials, is the typed
 * error as the request's own `error`. A plaintext URL is refused by Node (`ERR_INVALID_PROTOCOL`) before a connection is
 * opened. Idle connections are kept and used again; none outlives its credentials.
 *
 * Connections are on record from their start to their end; the requests on them are Node's and are not. Where each request is
 * to be on record, or retried under a policy, take `NodeDispatcher`, or a channel. All connections end with the scope.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { get } from "node:https"
 * import { NodeSecureAgent } from "@agentweave/transport-node"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const agent = yield* NodeSecureAgent.make({ peer: "spiffe://example.org/billing", origin: "https://billing.internal" })
 *   get("https://billing.internal/invoices/42", { agent }, (response) => response.resume())
 * })
 * ```
 */
export const make = (
  options: Options
): Effect.Effect<Agent, InvalidSpiffeIdError | InvalidConfigError, Connector | Scope.Scope> =>
  Effect.gen(function* () {
    const { maxFreeSockets, maxSockets } = yield* decode(options)
    const origin = yield* readOrigin(options.origin)
    const { peer, config } = options
    const common = yield* SecureSocket.toConnectOptions({
      peer,
      config,
      host: "origin",
      port: 443,
      protocols: ["http/1.1"]
    })
    const open = yield* Opener.make(PeerMatcher.describe(common.matcher))
    return yield* Effect.acquireRelease(
      Effect.sync(
        () =>
          new SecureAgent(open, common, origin, {
            keepAlive: true,
            ...(maxSockets === undefined ? undefined : { maxSockets }),
            ...(maxFreeSockets === undefined ? undefined : { maxFreeSockets })
          })
      ),
      (agent) => Effect.sync(() => agent.destroy())
    )
  })
