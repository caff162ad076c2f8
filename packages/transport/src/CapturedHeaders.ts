/**
 * Which request headers may stand in a span.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"

/**
 * Names of request headers whose values are put on the spans of client and server, as `http.request.header.<name>`; upper
 * and lower case do not matter. Default: none, and no header value is in any output. `authorization`, `proxy-authorization`,
 * `cookie`, `set-cookie`, `x-api-key` and `x-auth-token` are never put there, whether listed or not.
 *
 * For a server, provide it to the layer that serves; for a client, to the effect that sends.
 *
 * @since 0.1.0
 * @category tags
 * @example
 * ```ts
 * import { CapturedHeaders } from "@agentweave/transport"
 * import { Layer } from "effect"
 *
 * const Captured = Layer.succeed(CapturedHeaders.CapturedHeaders, ["user-agent", "x-request-id"])
 * ```
 */
export class CapturedHeaders extends Context.Reference<CapturedHeaders>()("@agentweave/transport/CapturedHeaders", {
  defaultValue: (): ReadonlyArray<string> => []
}) {}
