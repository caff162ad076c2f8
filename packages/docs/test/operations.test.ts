import { readFileSync } from "node:fs"
import { AuditEvent, IdentityError, PeerVerificationError, TransportError } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"

const page = readFileSync(new URL("../site/guide/operations.md", import.meta.url), "utf8")
const sourceOf = (name: string) => readFileSync(new URL(`../../transport/src/${name}.ts`, import.meta.url), "utf8")
const found = (text: string, pattern: RegExp) => Array.from(text.matchAll(pattern), ([, word]) => word ?? "")

const events = found(sourceOf("AuditEvent"), /TaggedStruct\("(\w+)"/g)
const metrics = found(sourceOf("TransportMetrics"), /"(transport_\w+)"/g)
const named = new Set(found(page, /`([^`\n]+)`/g))
const missing = (words: ReadonlyArray<string>) => words.filter((word) => !named.has(word))

describe("the page about operation explains", () => {
  it("every error and each of its reasons", () => {
    expect(missing(PeerVerificationError.PeerVerificationReason.literals)).toStrictEqual([])
    expect(missing(IdentityError.IdentityErrorReason.literals)).toStrictEqual([])
    expect(missing(TransportError.ConnectionErrorReason.literals)).toStrictEqual([])
    expect(missing(TransportError.TimeoutPhase.literals)).toStrictEqual([])
    expect(missing(TransportError.ScopeClosedErrorReason.literals)).toStrictEqual([])
    const tags = TransportError.TransportError.members.map(({ _tag }) => _tag)
    expect(missing([...tags, "PoolExhaustedError", "PoolClosedError", "CircuitOpenError", "AuditError"])).toStrictEqual(
      []
    )
  })

  it("every audit event, why a connection closed and what was wrong with our identity", () => {
    expect(events.length).toBe(AuditEvent.AuditEvent.members.length)
    expect(missing(events)).toStrictEqual([])
    expect(missing(AuditEvent.CloseReason.literals)).toStrictEqual([])
    expect(missing(AuditEvent.IdentityProblem.fields.problem.literals)).toStrictEqual([])
  })

  it("every metric there is, and none that is not", () => {
    expect(metrics.length).toBeGreaterThan(15)
    expect(missing(metrics)).toStrictEqual([])
    const shown = Array.from(named).filter((word) => word.startsWith("transport_"))
    expect(shown.filter((word) => !metrics.includes(word))).toStrictEqual([])
  })
})
