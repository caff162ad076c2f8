import { AuditEvent } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import * as fc from "fast-check"
import { toJson } from "../src/internal/audit/eventJson.js"

/** Any event; with strings of every kind, which the arbitraries of schemas make seldom. */
const event = fc
  .tuple(
    Arbitrary.make(AuditEvent.AuditEvent),
    fc.record(
      {
        path: fc.fullUnicodeString(),
        error: fc.oneof(fc.fullUnicodeString(), fc.constantFrom("\ud800", '"', "\\", "\u2028", "\u007f", "\n")),
        traceId: fc.string(),
        status: fc.constantFrom(200, -0, Number.NaN, Number.POSITIVE_INFINITY, 1e21)
      },
      { requiredKeys: [] }
    )
  )
  .map(([any, { path = "", traceId, ...outcome }]): AuditEvent.AuditEvent => {
    const trace = traceId === undefined ? undefined : { traceId }
    if (any._tag === "RequestStarted") return { ...any, path, ...trace }
    return any._tag === "RequestEnded" ? { ...any, path, ...trace, ...outcome } : any
  })

const ofRequests = event.filter(AuditEvent.isRequest)

describe("an event as JSON", () => {
  it("is what JSON.stringify makes of it, whatever is in it", () => {
    fc.assert(
      fc.property(fc.oneof(event, ofRequests), (any) => {
        expect(JSON.parse(toJson(any))).toEqual(JSON.parse(JSON.stringify(any)))
      }),
      { numRuns: 500 }
    )
  })

  it("has the fields in the order of their documentation", () => {
    const ended = {
      _tag: "RequestEnded",
      time: 1,
      side: "Server",
      connectionId: "c1",
      address: "127.0.0.1:1",
      requestId: "r1",
      traceId: "0af7",
      peerId: "spiffe://example.org/api",
      method: "GET",
      path: "/",
      attempt: 1,
      status: 500,
      error: "TimeoutError",
      durationMillis: 2
    } as const satisfies AuditEvent.AuditEvent
    expect(toJson(ended)).toBe(JSON.stringify(ended))
    expect(Schema.decodeUnknownSync(Schema.parseJson(AuditEvent.AuditEvent))(toJson(ended))).toEqual(ended)
  })
})
