/**
 * The attributes a span of a request may hold, for authors of transports. Requests themselves are put on record by the connection that
 * carries them.
 *
 * @since 0.1.0
 */
import type { RuntimeFiber } from "effect/Fiber"
import type * as Tracer from "effect/Tracer"
import * as tracing from "./internal/requestTelemetry.js"

/**
 * The tracer that a fiber's requests are to be traced with: `undefined` where there is none but Effect's own, which keeps
 * its spans to itself, or where tracing is off.
 *
 * @since 0.1.0
 * @category getters
 */
export const tracerOf: (fiber: RuntimeFiber<unknown, unknown>) => Tracer.Tracer | undefined = tracing.tracerOf

/**
 * Puts those headers of a request on its span that `CapturedHeaders` lists, under OpenTelemetry's names; never
 * `authorization`, `cookie` and the like.
 *
 * @since 0.1.0
 * @category operations
 */
export const captureHeaders: (
  span: Tracer.Span,
  names: ReadonlyArray<string> | undefined,
  headers: { readonly [name: string]: string | ReadonlyArray<string> | undefined }
) => void = tracing.captureHeaders

/**
 * A request target without its query, and without the authority of an absolute one (RFC 9112 section 3.2.2): either may
 * hold what is nobody's business.
 *
 * @since 0.1.0
 * @category getters
 */
export const pathOf: (target: string) => string = tracing.pathOf

/**
 * The `http.request.method` of OpenTelemetry's semantic conventions: a method of RFC 9110 or RFC 5789 as it is, any other
 * `_OTHER`.
 *
 * @since 0.1.0
 * @category getters
 */
export const methodOf: (method: string) => string = tracing.methodOf

/**
 * The name of an error in a span: its tag or its name, and nothing of its content.
 *
 * @since 0.1.0
 * @category getters
 */
export const nameOf: (error: unknown) => string = tracing.nameOf

/**
 * Whether a status says that the server failed (RFC 9110 section 15.6): it counts at a breaker, and in spans and metrics as an
 * error of the server's. A 4xx is the caller's.
 *
 * @since 0.1.0
 * @category guards
 */
export const isServerErrorStatus: (status: number) => boolean = tracing.isServerErrorStatus
