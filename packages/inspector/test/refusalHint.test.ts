import { RefusalHint } from "@agentweave/inspector"
import { IdentityError, PeerVerificationError } from "@agentweave/spiffe"
import { TransportError } from "@agentweave/transport"
import { assert, describe, it } from "@effect/vitest"
import { refused } from "./events.js"

const hintFor = (error: string, reason: string) => {
  const event = refused({ error, reason })
  return event._tag === "ConnectionRefused" ? RefusalHint.hintFor(event) : null
}

/** These happen to a connection that was established, so they refuse none. */
const later: ReadonlySet<string> = new Set(["Closed", "MaybeRefused", "Lost", "Malformed"])

describe("where to look first", () => {
  it("is said for every reason that a connection is refused with", () => {
    const reasons = {
      PeerVerificationError: PeerVerificationError.PeerVerificationReason.literals,
      IdentityError: IdentityError.IdentityErrorReason.literals,
      ConnectionError: TransportError.ConnectionErrorReason.literals.filter((reason) => !later.has(reason))
    }
    for (const [error, literals] of Object.entries(reasons)) {
      for (const reason of literals) assert.match(hintFor(error, reason) ?? "", /\.$/, `${error} ${reason}`)
    }
  })

  it("is not made up for a reason that is unknown here", () => {
    assert.isNull(hintFor("ConnectionError", "SomethingNew"))
  })
})
