import { X509Svid } from "@agentweave/spiffe"
import * as Bundle from "@agentweave/spiffe/X509Bundle"
import * as Minted from "@agentweave/testkit/Credentials"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { Effect, Redacted } from "effect"
import type { Credentials, Identity } from "./credentials.js"
import { reissue } from "./leaves.js"

const identityOf = (svid: X509Svid.X509Svid): Identity => ({
  certificates: X509Svid.certificatesPem(svid),
  key: Redacted.value(X509Svid.privateKeyPem(svid))
})

/** Root, intermediate, and the workloads' certificates, P-256. */
export const make = (leaves: number): Promise<Credentials> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "bench.test", intermediates: 1 })
      const issue = (path: string) => Effect.map(authority.issue({ path }), identityOf)
      const leaf = yield* authority.issueRaw({ path: "/leaf" })
      const [first, ...issuers] = leaf.certificates
      const key = Redacted.value(leaf.privateKeyPem)
      const above = issuers.map(Minted.toPem).join("")
      return {
        ca: Bundle.toPem(authority.bundle),
        server: yield* issue("/server"),
        client: yield* issue("/client"),
        leaves: reissue(first, Redacted.value(authority.issuer.keyPair.privateKey), leaves).map((der) => ({
          certificates: Minted.toPem(der) + above,
          key
        }))
      }
    })
  )
