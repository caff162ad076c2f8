/**
 * Faults that a {@link FaultProxy} brings into a connection, as values. A proxy checks them: `setFault` refuses a fault that
 * breaks a rule, as a negative delay, with `InvalidConfigError`.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"

/**
 * - `PassThrough`: bytes go both ways, undisturbed.
 * - `Refuse`: nobody listens; the client's connect is refused.
 * - `Reset`: once `afterBytes` have passed in `direction`, both sides get a TCP reset. With 0 it comes at once. (A Node
 *   client that finds the last bytes and the reset together reports an end instead of ECONNRESET.)
 * - `Finish`: as `Reset`, with an orderly end (FIN) to the client in place of the reset.
 * - `Silence`: the connection is accepted, what the client sends is read, and nothing is ever answered.
 * - `Delay`: every piece on its way to the client is held back for `by`, on Effect's `Clock`.
 * - `Answer`: the client's first bytes are answered with `bytes`, then the connection ends. The server is not involved.
 *
 * @since 0.1.0
 * @category models
 */
export type Fault =
  | { readonly _tag: "PassThrough" }
  | { readonly _tag: "Refuse" }
  | { readonly _tag: "Reset"; readonly afterBytes: number; readonly direction: Direction }
  | { readonly _tag: "Finish"; readonly afterBytes: number; readonly direction: Direction }
  | { readonly _tag: "Silence" }
  | { readonly _tag: "Delay"; readonly by: Duration.DurationInput }
  | { readonly _tag: "Answer"; readonly bytes: Uint8Array }

/**
 * The direction of the bytes that are counted.
 *
 * @since 0.1.0
 * @category models
 */
export type Direction = "FromClient" | "ToClient"

/**
 * The place at which a connection is cut.
 *
 * @since 0.1.0
 * @category models
 */
export interface CutOptions {
  /** How many bytes still pass: a whole number, not negative. Default 0. */
  readonly afterBytes?: number | undefined
  /** Which bytes are counted. Default `ToClient`. */
  readonly direction?: Direction | undefined
}

const cut = ({ afterBytes = 0, direction = "ToClient" }: CutOptions) => ({ afterBytes, direction })

/**
 * No fault: every byte passes.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Fault, type FaultProxy } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const outage = (proxy: FaultProxy.FaultProxy) =>
 *   Effect.gen(function* () {
 *     yield* proxy.setFault(Fault.refuse)
 *     // ... see the circuit open, then:
 *     yield* proxy.setFault(Fault.passThrough)
 *   })
 * ```
 */
export const passThrough: Fault = { _tag: "PassThrough" }

/**
 * Refuses the connection.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Fault, FaultProxy } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const proxy = yield* FaultProxy.make({ port: 8443 })
 *   yield* proxy.setFault(Fault.refuse)
 *   yield* proxy.cutAll
 * })
 * ```
 */
export const refuse: Fault = { _tag: "Refuse" }

/**
 * `reset()` cuts a handshake before its first byte; `reset({ afterBytes: 5000 })` typically cuts a response in the middle.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Fault, type FaultProxy } from "@agentweave/testkit"
 *
 * const breakTheBody = (proxy: FaultProxy.FaultProxy) => proxy.setFault(Fault.reset({ afterBytes: 5_000 }))
 * const breakTheUpload = (proxy: FaultProxy.FaultProxy) =>
 *   proxy.setFault(Fault.reset({ afterBytes: 5_000, direction: "FromClient" }))
 * ```
 */
export const reset = (options: CutOptions = {}): Fault => ({ _tag: "Reset", ...cut(options) })

/**
 * As {@link reset}, with an orderly end (FIN) to the client in place of the reset.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Fault, type FaultProxy } from "@agentweave/testkit"
 *
 * // A response that ends too early, without an error of the network.
 * const truncate = (proxy: FaultProxy.FaultProxy) => proxy.setFault(Fault.finish({ afterBytes: 5_000 }))
 * ```
 */
export const finish = (options: CutOptions = {}): Fault => ({ _tag: "Finish", ...cut(options) })

/**
 * Accepts the connection, reads what the client sends, and never answers.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Fault, type FaultProxy } from "@agentweave/testkit"
 *
 * // Handshakes end with a TimeoutError, phase Connect.
 * const hang = (proxy: FaultProxy.FaultProxy) => proxy.setFault(Fault.silence)
 * ```
 */
export const silence: Fault = { _tag: "Silence" }

/**
 * Holds back every piece on its way to the client.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Fault, type FaultProxy } from "@agentweave/testkit"
 *
 * const farAway = (proxy: FaultProxy.FaultProxy) => proxy.setFault(Fault.delay("150 millis"))
 * ```
 */
export const delay = (by: Duration.DurationInput): Fault => ({ _tag: "Delay", by })

/**
 * Answers the first bytes of the client with these, and ends the connection. The server is not involved.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Fault, type FaultProxy } from "@agentweave/testkit"
 *
 * const sshServer = (proxy: FaultProxy.FaultProxy) => proxy.setFault(Fault.answer("SSH-2.0-OpenSSH_9.6\r\n"))
 * ```
 */
export const answer = (bytes: Uint8Array | string): Fault => ({
  _tag: "Answer",
  bytes: typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes
})

/**
 * Bytes that are no TLS record.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Fault, type FaultProxy } from "@agentweave/testkit"
 *
 * const notTls = (proxy: FaultProxy.FaultProxy) => proxy.setFault(Fault.garbage)
 * ```
 */
export const garbage: Fault = answer(Uint8Array.from({ length: 512 }, (_, index) => (index * 167 + 13) % 256))

/**
 * A web server without TLS.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Fault, type FaultProxy } from "@agentweave/testkit"
 *
 * const withoutTls = (proxy: FaultProxy.FaultProxy) => proxy.setFault(Fault.plaintextHttp)
 * ```
 */
export const plaintextHttp: Fault = answer(
  "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n"
)
