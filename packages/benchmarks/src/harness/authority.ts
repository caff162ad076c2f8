import { X509Svid } from "@agentweave/spiffe"
import * as Bundle from "@agentweave/spiffe/X509Bundle"
import * as Minted from "@agentweave/testkit/Credentials"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { Effect, Redacted } from "effect"
import { type Credentials, type Identity, peerName } from "./credentials.js"
import { reissue } from "./leaves.js"

const identityOf = (svid: X509Svid.X509Svid): Identity => ({
  certificates: X509Svid.certificatesPem(svid),
  key: Redacted.value(X509Svid.privateKeyPem(svid))
})

/** Root, intermediate, and the workloads' certificates, P-256. */
export const make = (leaves: number, peers = 0): Promise<Credentials> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "bench.test", intermediates: 1 })
      const issue = (path: string) => Effect.map(authority.issue({ path }), identityOf)
      const many = (path: string, count: number, change?: (tbs: Buffer, i: number) => void) =>
        Effect.map(authority.issueRaw({ path }), ({ certificates: [first, ...issuers], privateKeyPem }) => {
          const key = Redacted.value(privateKeyPem)
          const above = issuers.map(Minted.toPem).join("")
          return reissue(first, Redacted.value(authority.issuer.keyPair.privateKey), count, change).map((der) => ({
            certificates: Minted.toPem(der) + above,
            key
          }))
        })
      return {
        ca: Bundle.toPem(authority.bundle),
        server: yield* issue("/server"),
        client: yield* issue("/client"),
        leaves: yield* many("/leaf", leaves),
        peers: yield* many(peerName(0), peers, (tbs, i) => tbs.write(peerName(i), tbs.indexOf("/peer/")))
      }
    })
  )
