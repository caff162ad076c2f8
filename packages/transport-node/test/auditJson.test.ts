import { AuditEvent } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import * as fc from "fast-check"
import { EventJson } from "../src/internal/audit/eventJson.js"

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

type RequestEvent = Extract<AuditEvent.AuditEvent, { readonly _tag: "RequestStarted" | "RequestEnded" }>

const ofRequests = event.filter((any): any is RequestEvent => AuditEvent.isRequest(any))

/** What a connection and a peer have had before, in part: what is kept of them must not be taken for what they have now. */
const requests = fc.array(
  fc
    .tuple(
      ofRequests,
      fc.record({
        connectionId: fc.constantFrom("c1", "c2"),
        address: fc.constantFrom("10.0.0.1:443", "10.0.0.2:443"),
        side: fc.constantFrom("Client" as const, "Server" as const),
        peerId: fc.constantFrom("spiffe://a/b", "spiffe://a/c"),
        method: fc.constantFrom("GET", "PUT"),
        path: fc.constantFrom("/", '/"'),
        attempt: fc.constantFrom(1, 2)
      })
    )
    .map(([any, again]) => ({ ...any, ...again })),
  { maxLength: 30 }
)

const toJson = (any: AuditEvent.AuditEvent): string => new EventJson().of(any)

describe("an event as JSON", () => {
  it("is what JSON.stringify makes of it, whatever is in it", () => {
    fc.assert(
      fc.property(fc.oneof(event, ofRequests), (any) => {
        expect(JSON.parse(toJson(any))).toEqual(JSON.parse(JSON.stringify(any)))
      }),
      { numRuns: 500 }
    )
  })

  it("is that of the event, whatever was written before it", () => {
    fc.assert(
      fc.property(requests, (all) => {
        const json = new EventJson()
        for (const one of all) expect(json.of(one)).toBe(toJson(one))
      }),
      { numRuns: 300 }
    )
  })

  it("stays right when more connections, peers and longer paths were seen than are remembered", () => {
    const json = new EventJson()
    const [one] = fc.sample(ofRequests, { numRuns: 1, seed: 1 })
    if (one === undefined) throw new Error("expected an event")
    for (let i = 0; i < 2_500; i++) {
      const path = i % 3 === 0 ? `/${"x".repeat(2_000)}` : "/"
      const next = { ...one, connectionId: `c${i % 1_200}`, peerId: `spiffe://a/${i % 1_100}`, path }
      expect(json.of(next)).toBe(toJson(next))
    }
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
