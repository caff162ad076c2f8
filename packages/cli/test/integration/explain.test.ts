import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createServer } from "node:tls"
import * as Explain from "@agentweave/cli/Explain"
import { X509Bundle, X509Svid } from "@agentweave/spiffe"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import { NodeContext } from "@effect/platform-node"
import { expect, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"

const setUp = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "explain-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true }))
  )
  const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 2 })
  const svid = yield* authority.issue({ path: "/api" })
  const cert = join(folder, "cert.pem")
  const bundle = join(folder, "bundle.pem")
  writeFileSync(cert, X509Svid.certificatesPem(svid))
  writeFileSync(bundle, X509Bundle.toPem(authority.bundle))
  return { folder, authority, svid, cert, bundle }
})

it.scopedLive("a certificate file is explained for people and for programs", () =>
  Effect.gen(function* () {
    const { bundle, cert } = yield* setUp
    const good = yield* Explain.run(["--cert", cert, "--bundle", bundle, "--expect", "spiffe://example.org/api"])
    expect(good.accepted).toBe(true)
    expect(good.output).toContain("accepted: spiffe://example.org/api")
    const bad = yield* Explain.run([
      "--cert",
      cert,
      "--bundle",
      bundle,
      "--expect",
      "spiffe://example.org/web",
      "--json"
    ])
    expect(bad.accepted).toBe(false)
    expect(JSON.parse(bad.output)).toMatchObject({
      claimedId: "spiffe://example.org/api",
      failure: { reason: "UnexpectedPeer", rule: "matcher" }
    })
  }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive(
  "what a server presents is explained, whatever the order of its intermediates, and nothing is sent to it",
  () =>
    Effect.gen(function* () {
      const { bundle, svid } = yield* setUp
      let received = 0
      const [leaf = "", ...above] = X509Svid.certificatesPem(svid).split(/(?=-----BEGIN)/)
      const outOfOrder = [leaf, ...above.toReversed()].join("")
      const server = yield* Effect.acquireRelease(
        Effect.async<ReturnType<typeof createServer>>((resume) => {
          const made = createServer(
            { cert: outOfOrder, key: Redacted.value(X509Svid.privateKeyPem(svid)) },
            (socket) => {
              socket.on("error", () => {})
              socket.on("data", (data) => {
                received += data.length
              })
            }
          )
          made.listen(0, "127.0.0.1", () => resume(Effect.succeed(made)))
        }),
        (made) => Effect.async<void>((resume) => void made.close(() => resume(Effect.void)))
      )
      const { port } = server.address() as AddressInfo
      const expected = ["--bundle", bundle, "--expect", "spiffe://example.org/api"]
      const found = yield* Explain.run(["--connect", `127.0.0.1:${port}`, ...expected])
      expect(found.output).toContain("accepted: spiffe://example.org/api")
      expect(received).toBe(0)
    }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive("what the gate accepts and Node's TLS does not is refused, in both roles, with TLS's reason", () =>
  Effect.gen(function* () {
    const { authority, bundle, folder } = yield* setUp
    // Without a DNS name among its alternative names, TLS takes the common name for one.
    const limited = yield* CertificateAuthority.makeIntermediate(authority.roots[0], {
      nameConstraints: { permitted: { dnsNames: ["internal"] } }
    })
    const cert = join(folder, "limited.pem")
    const id = "spiffe://example.org/workload"
    for (const [subject, accepted] of [
      ["CN=api.internal", true],
      ["CN=api.evil.test", false]
    ] as const) {
      const { certificates } = yield* CertificateAuthority.issue(limited, { subject })
      writeFileSync(cert, X509Bundle.toPem({ ...authority.bundle, authorities: certificates }))
      for (const role of ["server", "client"]) {
        const given = ["--cert", cert, "--bundle", bundle, "--expect", id, "--role", role]
        const explained = yield* Explain.run(given)
        expect(explained.accepted).toBe(accepted)
        const step = explained.output.split("\n").find((line) => line.includes("tls-verification")) ?? ""
        expect(step).toMatch(accepted ? /^ {2}ok .*seen: one$/ : /^ {2}NO .*seen: permitted subtree violation/)
      }
    }
  }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive("a file without a certificate is wrong use, and the message says what it holds", () =>
  Effect.gen(function* () {
    const { bundle, folder, svid } = yield* setUp
    const key = join(folder, "key.pem")
    const given = ["--cert", key, "--bundle", bundle, "--expect", "spiffe://example.org/api"]
    for (const [content, got] of [
      [Redacted.value(X509Svid.privateKeyPem(svid)), "a private key"],
      ["", "none"],
      ["-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "a block X509 CRL"]
    ] as const) {
      writeFileSync(key, content)
      const error = yield* Effect.flip(Explain.run(given))
      expect(error._tag).toBe("UsageError")
      expect(error.message).toBe(`expected PEM certificates in ${key}, got ${got}`)
    }
  }).pipe(Effect.provide(NodeContext.layer))
)

it.scopedLive("wrong arguments and absent servers are said so", () =>
  Effect.gen(function* () {
    const { bundle, cert } = yield* setUp
    const id = "spiffe://example.org/api"
    for (const wrong of [
      [],
      ["--cert", cert],
      ["--cert", cert, "--connect", "a:1", "--bundle", bundle, "--expect", id],
      ["--cert", cert, "--bundle", bundle, "--expect", id, "--role", "king"],
      ["--connect", "nowhere", "--bundle", bundle, "--expect", id],
      ["--connect", "127.0.0.1:1", "--bundle", bundle, "--expect", id]
    ]) {
      expect(yield* Effect.flip(Explain.run(wrong))).toMatchObject({ _tag: "UsageError" })
    }
    const badId = yield* Effect.flip(Explain.run(["--cert", cert, "--bundle", bundle, "--expect", "example.org/api"]))
    expect(badId._tag).toBe("InvalidSpiffeIdError")
  }).pipe(Effect.provide(NodeContext.layer))
)
