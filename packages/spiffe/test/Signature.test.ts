import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either } from "effect"
import { readCertificate } from "../src/internal/der/certificate.js"
import { makeCheck } from "../src/internal/gate/signature.js"

const read = (der: Uint8Array) => Either.getOrThrow(readCertificate(der))

describe("the signature of a CA's certificate, verified once", () => {
  it.effect("verifies again, but only for the same certificate and the same key", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      const namesake = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      const rootOf = ({ bundle }: DevAuthority.DevAuthority) => read(bundle.authorities[0] ?? new Uint8Array(0))
      const { certificates } = yield* authority.issueRaw()
      const der = certificates[1] ?? new Uint8Array(0)
      const intermediate = read(der)
      // A serial number is the one part that may change without the certificate being read as another kind of thing.
      const altered = Uint8Array.from(der)
      const serial = Buffer.from(der).indexOf(Buffer.from(intermediate.serialNumber, "hex"))
      altered[serial + 1] = (altered[serial + 1] ?? 0) ^ 1

      const isSignedBy = makeCheck()
      for (let time = 0; time < 2; time++) {
        assert.isTrue(isSignedBy(intermediate, rootOf(authority)))
        assert.isFalse(isSignedBy(intermediate, rootOf(namesake)))
        assert.isFalse(isSignedBy(read(altered), rootOf(authority)))
      }
    })
  )
})
