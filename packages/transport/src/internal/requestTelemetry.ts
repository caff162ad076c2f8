import * as Context from "effect/Context"
import { liveServices } from "effect/DefaultServices"
import type { RuntimeFiber } from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { hasProperty } from "effect/Predicate"
import * as Tracer from "effect/Tracer"
import { fiberRefOf } from "./fiber.js"

/** Effect's own tracer: it is always there and keeps its spans to itself, so it counts as none. */
const nativeTracer = Context.get(liveServices, Tracer.Tracer)

/** The tracer a fiber's requests are to be traced with, if somebody has put one there. */
export const tracerOf = (fiber: RuntimeFiber<unknown, unknown>): Tracer.Tracer | undefined => {
  const tracer = fiber.currentTracer
  return tracer === nativeTracer || !fiberRefOf(fiber, FiberRef.currentTracerEnabled) ? undefined : tracer
}

/** Headers that are secrets by their nature. */
const neverCaptured: ReadonlySet<string> = new Set([
  "authorization",
  "proxy-authorization",
  "cookie",
  "set-cookie",
  "x-api-key",
  "x-auth-token"
])

/** Puts the headers that are allowed on the span of their request, under OpenTelemetry's names. */
export const captureHeaders = (
  span: Tracer.Span,
  names: ReadonlyArray<string> | undefined,
  headers: { readonly [name: string]: string | ReadonlyArray<string> | undefined }
): void => {
  if (names === undefined) return
  for (const given of names) {
    const name = given.toLowerCase()
    const value = neverCaptured.has(name) ? undefined : headers[name]
    if (value !== undefined) {
      span.attribute(`http.request.header.${name}`, typeof value === "string" ? value : value.join(", "))
    }
  }
}

/**
 * A request target without its query, and without the authority of an absolute one (RFC 9112 section 3.2.2): either may
 * hold what is nobody's business.
 */
export const pathOf = (target: string): string => {
  const query = target.indexOf("?")
  const path = query === -1 ? target : target.slice(0, query)
  return path.startsWith("/") ? path : path.replace(/^[a-zA-Z][a-zA-Z0-9+.-]*:\/\/[^/]*/, "") || "/"
}

/** The methods of RFC 9110 and RFC 5789. */
const knownMethods: ReadonlySet<string> = new Set([
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "DELETE",
  "CONNECT",
  "OPTIONS",
  "TRACE",
  "PATCH"
])

/** A method as it is, or `_OTHER`: callers choose methods, and what groups by them is to stay small. */
export const methodOf = (method: string): string => (knownMethods.has(method) ? method : "_OTHER")

/** The name of an error: its tag or name, and nothing of its content. */
export const nameOf = (error: unknown): string => {
  if (hasProperty(error, "_tag") && typeof error._tag === "string") return error._tag
  return error instanceof Error ? error.name : typeof error
}

/** Whether a status says that the server failed (RFC 9110 section 15.6). */
export const isServerErrorStatus = (status: number): boolean => status >= 500
