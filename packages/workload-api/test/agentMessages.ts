import { DevAuthority } from "@agentweave/testkit"
import { Effect, Redacted } from "effect"

export const authority = DevAuthority.make({ trustDomain: "example.org" })

export const garbage = Redacted.make(Uint8Array.of(0x0a, 0xff))

/** Reasons read better than errors in an expectation. */
export const reasonOf = <A>(effect: Effect.Effect<A, { readonly reason: string }>) =>
  Effect.match(effect, { onFailure: (error) => error.reason, onSuccess: () => "ok" })
