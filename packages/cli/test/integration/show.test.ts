import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as DevAgent from "@agentweave/cli/DevAgent"
import { SpiffeBundle, X509Bundle, X509Svid } from "@agentweave/spiffe"
import { CertificateAuthority, Credentials, DevAuthority } from "@agentweave/testkit"
import { describe, expect, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { directory, run } from "../commandLine.js"

const setUp = Effect.gen(function* () {
  const folder = yield* directory
  const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
  const file = (name: string, text: string) => {
    const path = join(folder, name)
    writeFileSync(path, text)
    return path
  }
  return { authority, file, folder, bundle: file("bundle.pem", X509Bundle.toPem(authority.bundle)) }
})

describe("agentweave svid show", () => {
  it.scopedLive("shows the ID, the chain, and what will happen in its order", () =>
    Effect.gen(function* () {
      const { authority, bundle, file } = yield* setUp
      const svid = yield* authority.issue({ path: "/api", ttl: "1 hour" })
      const cert = file("svid.pem", X509Svid.certificatesPem(svid))

      const { exitCode, out } = yield* run(["svid", "show", "--cert", cert, "--bundle", bundle])
      expect(exitCode).toBe(0)
      expect(out).toContain("spiffe://example.org/api")
      expect(out).toContain("verified under the bundle of its trust domain")
      expect(out).toMatch(/a successor is overdue \(Stale\)\n.*\(in \d+ min\) the SVID expires\n/)
      // Both were made in these seconds, in either order as far as their dates show.
      expect(out).toMatch(/ the intermediate .* expires/)
      expect(out).toMatch(/ the authority .* expires/)

      const json = yield* run(["svid", "show", "--cert", cert, "--bundle", bundle, "--json"])
      const [shown] = JSON.parse(json.out).svids
      expect(shown).toMatchObject({ spiffeId: svid.spiffeId, verified: true, problems: [] })
      expect(shown.chain).toHaveLength(2)
      expect(shown.chain[0]).toMatchObject({ role: "Leaf", fingerprint: svid.fingerprint, uris: [svid.spiffeId] })
      expect(Date.parse(shown.chain[0].notAfter)).toBe(svid.notAfter)
      const times = shown.ahead.map(({ inMillis }: { readonly inMillis: number }) => inMillis)
      expect(times).toStrictEqual(times.toSorted((a: number, b: number) => a - b))
    })
  )

  it.scopedLive("says what is wrong with an SVID that cannot be used, and exits with 1", () =>
    Effect.gen(function* () {
      const { authority, bundle, file } = yield* setUp
      const pem = (credentials: { readonly certificatesPem: string }) => credentials.certificatesPem
      const expired = file("expired.pem", pem(yield* authority.issueRaw({ path: "/api", validity: "Expired" })))
      const old = yield* run(["svid", "show", "--cert", expired, "--bundle", bundle])
      expect(old.exitCode).toBe(1)
      expect(old.out).toContain("PROBLEM: the leaf has expired")
      expect(old.out).toContain("PROBLEM: refused as a server: Expired")

      const other = yield* DevAuthority.make({ trustDomain: "example.org" })
      const stranger = file("stranger.pem", X509Svid.certificatesPem(yield* other.issue({ path: "/api" })))
      const refused = yield* run(["svid", "show", "--cert", stranger, "--bundle", bundle, "--json"])
      expect(refused.exitCode).toBe(1)
      expect(JSON.parse(refused.out).svids[0].problems[1]).toMatch(/^refused as a client: UntrustedChain/)

      const ca = file("ca.pem", X509Bundle.toPem(authority.bundle))
      expect((yield* run(["svid", "show", "--cert", ca])).out).toContain("PROBLEM: the leaf is no SVID")
    })
  )

  it.scopedLive("shows every SVID and bundle that a Workload API delivers", () =>
    Effect.gen(function* () {
      const folder = yield* directory
      const options = yield* DevAgent.parse([
        ...["--trust-domain", "dev.local", "--socket", join(folder, "web.sock")],
        ...["--workload", "/web", "--workload", "/shop"]
      ])
      const [web] = yield* DevAgent.serve(options)
      const endpoint = web?.endpoint ?? ""
      const svids = yield* run(["svid", "show", "--endpoint", endpoint, "--json"])
      expect(svids.exitCode).toBe(0)
      expect(JSON.parse(svids.out).svids).toMatchObject([
        { spiffeId: "spiffe://dev.local/web", hint: "web", verified: true, problems: [] },
        { spiffeId: "spiffe://dev.local/shop", hint: "shop", verified: true, problems: [] }
      ])
      const bundles = yield* run(["bundle", "show", "--endpoint", endpoint])
      expect(bundles.exitCode).toBe(0)
      expect(bundles.out).toMatch(/^dev\.local, generation [0-9a-f]{16}\n {2}Authority/)
    })
  )
})

describe("agentweave bundle show", () => {
  it.scopedLive("shows the authorities of a PEM file and of a bundle document", () =>
    Effect.gen(function* () {
      const { authority, bundle, file } = yield* setUp
      const pem = yield* run(["bundle", "show", bundle, "--trust-domain", "example.org", "--json"])
      expect(pem.exitCode).toBe(0)
      const [shown] = JSON.parse(pem.out).bundles
      expect(shown).toMatchObject({ trustDomain: "example.org", problems: [], generation: authority.bundle.generation })

      const document = SpiffeBundle.make({
        x509Bundle: authority.bundle,
        sequence: 7n,
        refreshHint: Duration.minutes(5)
      })
      const path = file("bundle.json", SpiffeBundle.toJson(document))
      const { out } = yield* run(["bundle", "show", "--trust-domain", "example.org", path])
      expect(out).toContain("sequence 7, to be fetched again after 300 s")
    })
  )

  it.scopedLive("exits with 1 where no authority is valid", () =>
    Effect.gen(function* () {
      const { file } = yield* setUp
      const authority = yield* CertificateAuthority.makeRoot({ trustDomain: "example.org", validity: "Expired" })
      const bundle = file("old.pem", Credentials.toPem(authority.certificate))
      const { exitCode, out } = yield* run(["bundle", "show", bundle, "--trust-domain", "example.org"])
      expect(exitCode).toBe(1)
      expect(out).toContain("no authority is valid now")
    })
  )
})
