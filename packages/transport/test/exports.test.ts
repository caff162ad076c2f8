import * as spiffe from "@agentweave/spiffe"
import * as transport from "@agentweave/transport"
import { Schema } from "effect"
import { describe, expect, it } from "vitest"

/** Every error that a program can meet on the way to a peer, by the module that has its class. */
const errors = {
  PeerVerificationError: transport.PeerVerificationError.PeerVerificationError,
  IdentityError: transport.IdentityError.IdentityError,
  InvalidSpiffeIdError: transport.InvalidSpiffeIdError.InvalidSpiffeIdError,
  InvalidConfigError: transport.InvalidConfigError.InvalidConfigError,
  ConnectionError: transport.TransportError.ConnectionError,
  TimeoutError: transport.TransportError.TimeoutError,
  ScopeClosedError: transport.TransportError.ScopeClosedError,
  PoolExhaustedError: transport.TransportError.PoolExhaustedError,
  PoolClosedError: transport.TransportError.PoolClosedError,
  CircuitOpenError: transport.CircuitOpenError.CircuitOpenError,
  RetryBudgetExhaustedError: transport.RetryBudget.RetryBudgetExhaustedError,
  AuditError: transport.AuditLog.AuditError
}

describe("one import is enough: @agentweave/transport", () => {
  for (const [tag, error] of Object.entries(errors)) {
    it(`has ${tag}`, () => expect(error.name === tag || error._tag === tag).toBe(true))
  }

  it("has the very classes and services of @agentweave/spiffe, not others of the same name", () => {
    expect(transport.IdentityProvider.IdentityProvider).toBe(spiffe.IdentityProvider.IdentityProvider)
    expect(transport.PeerVerificationError.PeerVerificationError).toBe(
      spiffe.PeerVerificationError.PeerVerificationError
    )
    expect(transport.TransportError.PeerVerificationError).toBe(spiffe.PeerVerificationError.PeerVerificationError)
    expect(transport.TransportError.IdentityError).toBe(spiffe.IdentityError.IdentityError)
    expect(transport.PeerMatcher.oneOf).toBe(spiffe.PeerMatcher.oneOf)
    expect(transport.SpiffeId.parse).toBe(spiffe.SpiffeId.parse)
  })
})

describe("the unions of errors are schemas", () => {
  const { ConnectionPoolError, PoolExhaustedError, TransportError, TimeoutError } = transport.TransportError
  const exhausted = new PoolExhaustedError({ targetId: "spiffe://example.org/api", maxConnections: 3, limit: "Target" })

  it("ConnectionPoolError writes and reads the pool's errors, and nothing else", () => {
    const json = JSON.parse(JSON.stringify(Schema.encodeSync(ConnectionPoolError)(exhausted)))
    expect(Schema.decodeSync(ConnectionPoolError)(json)).toEqual(exhausted)
    expect(Schema.is(ConnectionPoolError)(exhausted)).toBe(true)
    expect(transport.TransportError.isConnectionPoolError({ ...json })).toBe(false)
    expect(Schema.is(TransportError)(exhausted)).toBe(false)
  })

  it("TransportError reads what it wrote", () => {
    const json = { _tag: "TimeoutError", phase: "Headers", outcome: "Unknown", limit: 1_000, target: "api" } as const
    expect(Schema.decodeSync(TransportError)(json)).toBeInstanceOf(TimeoutError)
  })
})
