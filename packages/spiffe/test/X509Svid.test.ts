import { Buffer } from "node:buffer"
import { generateKeyPairSync, type KeyObject } from "node:crypto"
import { inspect } from "node:util"
import { PeerVerifier, X509BundleSet, X509Context, X509Svid } from "@agentweave/spiffe"
import * as Credentials from "@agentweave/testkit/Credentials"
import type * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as KeyPair from "@agentweave/testkit/KeyPair"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Inspectable, Redacted } from "effect"
import { readCertificate } from "../src/internal/der/certificate.js"
import { itAtEpoch, makeShared } from "./support/gate.js"

const shared = makeShared({ intermediates: 1 })

const arrange = (options?: DevAuthority.IssueOptions) => Effect.flatMap(shared, ({ issueRaw }) => issueRaw(options))

const pkcs8 = (key: Redacted.Redacted<KeyObject>) =>
  new Uint8Array(Redacted.value(key).export({ type: "pkcs8", format: "der" }))

const outcome = (svid: ReturnType<typeof X509Svid.fromDer>): string =>
  Either.match(svid, { onLeft: (error) => `${error.reason}: ${error.description}`, onRight: () => "fine" })

const fromDer = (credentials: Credentials.Credentials) =>
  X509Svid.fromDer({ certificates: credentials.certificates, privateKey: pkcs8(credentials.privateKey) })

/** Every form in which the bytes of a key could appear in a text. */
const traces = (key: Redacted.Redacted<KeyObject>): ReadonlyArray<string> => {
  const der = Buffer.from(pkcs8(key))
  const jwk = Redacted.value(key).export({ format: "jwk" })
  const secret = Buffer.from(jwk.d ?? "", "base64url")
  return [der, secret].flatMap((bytes) => [
    bytes.toString("base64").slice(4, 30),
    bytes.toString("base64url").slice(4, 30),
    bytes.toString("hex").slice(8, 40),
    bytes.subarray(4, 16).join(","),
    inspect(bytes.subarray(4, 16)).slice(8, 40)
  ])
}

const assertHidden = (text: string, key: Redacted.Redacted<KeyObject>) => {
  for (const trace of traces(key)) assert.notInclude(text, trace)
  assert.notInclude(text, "PRIVATE KEY")
}

describe("X509Svid from DER and PEM", () => {
  itAtEpoch("all forms give the same SVID, and it gives them back", () =>
    Effect.gen(function* () {
      const { certificates, certificatesPem, privateKey, privateKeyPem } = yield* arrange({ path: "/api" })
      const key = pkcs8(privateKey)
      const forms = [
        X509Svid.fromDer({ certificates, privateKey: key }),
        X509Svid.fromDer({ certificates: Buffer.concat(certificates), privateKey: Redacted.make(key) }),
        X509Svid.fromPem({ certificates: certificatesPem, privateKey: privateKeyPem }),
        X509Svid.fromPem({ certificates: certificatesPem, privateKey: Redacted.value(privateKeyPem) }),
        X509Svid.fromPem({
          certificates: Redacted.value(privateKeyPem) + certificatesPem.replaceAll("\n", "\r\n"),
          privateKey: privateKeyPem
        })
      ]
      for (const form of forms) {
        const svid = yield* form
        assert.strictEqual(svid.spiffeId, "spiffe://example.org/api")
        assert.deepStrictEqual(svid.certificates, certificates)
        assert.deepStrictEqual([svid.notBefore, svid.notAfter], [-60_000, 3_600_000])
        assert.match(svid.serialNumber, /^[0-9A-F]{32}$/)
        assert.match(svid.fingerprint, /^[0-9a-f]{64}$/)
        assert.isUndefined(svid.hint)
        assert.strictEqual(X509Svid.certificatesPem(svid), certificatesPem)
        assert.strictEqual(Redacted.value(X509Svid.privateKeyPem(svid)), Redacted.value(privateKeyPem))
      }
    })
  )

  itAtEpoch("keys in SEC1 and PKCS#1, and Ed25519 keys, are read", () =>
    Effect.gen(function* () {
      for (const [algorithm, type] of [
        ["P-256", "sec1"],
        ["RSA-2048", "pkcs1"],
        ["Ed25519", "pkcs8"]
      ] as const) {
        const { certificatesPem, privateKey } = yield* arrange({ keyAlgorithm: algorithm })
        const text = Redacted.value(privateKey).export({ type, format: "pem" }).toString()
        const svid = X509Svid.fromPem({ certificates: certificatesPem, privateKey: text })
        assert.strictEqual(outcome(svid), "fine", algorithm)
      }
    })
  )

  itAtEpoch("dates are the narrowest of the chain, and the hint is kept", () =>
    Effect.gen(function* () {
      const { certificates, privateKey } = yield* arrange({ validity: { notBefore: -120_000, notAfter: 10 ** 12 } })
      const svid = yield* X509Svid.fromDer({ certificates, privateKey: pkcs8(privateKey), hint: "internal" })
      assert.deepStrictEqual([svid.notBefore, svid.notAfter], [-60_000, 365 * 86_400_000])
      assert.strictEqual(svid.hint, "internal")
    })
  )

  itAtEpoch("what the caller does with its buffers later changes nothing", () =>
    Effect.gen(function* () {
      const { certificates, privateKey } = yield* arrange()
      const mine = certificates.map((der) => Uint8Array.from(der))
      const svid = yield* X509Svid.fromDer({ certificates: mine, privateKey: pkcs8(privateKey) })
      for (const der of mine) der.fill(0)
      assert.deepStrictEqual(svid.certificates, certificates)
    })
  )
})

/** A certificate whose key is on a curve named by a NULL, with a content it cannot have: OpenSSL alone minds. */
const onlyOursReads = (certificate: Uint8Array) => {
  const der = Buffer.from(certificate)
  der.writeUInt8(0x05, der.indexOf(Buffer.from("06072a8648ce3d0201", "hex")) + 9)
  assert.isTrue(Either.isRight(readCertificate(der)))
  return der
}

describe("what X509Svid refuses", () => {
  itAtEpoch("another certificate's key, of the same kind and of another", () =>
    Effect.gen(function* () {
      const credentials = yield* arrange()
      for (const algorithm of ["P-256", "P-384", "Ed25519"] as const) {
        const other = Credentials.withKeyPair(credentials, yield* KeyPair.make(algorithm))
        assert.match(outcome(fromDer(other)), /^Malformed: expected the private key of the leaf/)
      }
      const intermediate = Credentials.withChain(credentials, [])
      assert.strictEqual(outcome(fromDer(intermediate)), "fine")
    })
  )

  itAtEpoch("a leaf that breaks the profile", () =>
    Effect.gen(function* () {
      const rows: ReadonlyArray<readonly [DevAuthority.IssueOptions, string]> = [
        [{ basicConstraints: { ca: true } }, "leaf-not-ca"],
        [{ keyUsage: "Absent" }, "leaf-key-usage"],
        [{ keyUsage: ["digitalSignature", "keyCertSign"] }, "leaf-no-cert-sign"],
        [{ keyAlgorithm: "RSA-1024" }, "leaf-key"],
        [{ uris: ["spiffe://example.org"] }, "leaf-spiffe-id"],
        [{ uris: ["spiffe://example.org/a", "spiffe://example.org/b"] }, "leaf-one-uri"],
        [{ uris: [] }, "leaf-one-uri"],
        [{ dnsNames: Array.from({ length: 128 }, (_, i) => `n${i}.test`) }, "leaf-names-limit"],
        [{ extensions: [{ oid: "1.2.3.4", critical: false, value: new Uint8Array(70_000) }] }, "bytes-limit"]
      ]
      for (const [options, rule] of rows) {
        const text = outcome(fromDer(yield* arrange(options)))
        assert.match(text, /^InvalidSvid: /)
        assert.include(text, `[${rule}]`)
      }
    })
  )

  itAtEpoch("certificates that cannot be read, wherever they stand", () =>
    Effect.gen(function* () {
      const credentials = yield* arrange()
      const [leaf, intermediate] = credentials.certificates
      const junk = Buffer.from("0500", "hex")
      const privateKey = pkcs8(credentials.privateKey)
      const attempts: ReadonlyArray<Uint8Array | ReadonlyArray<Uint8Array>> = [
        [],
        new Uint8Array(0),
        [junk],
        [leaf, junk],
        [leaf, onlyOursReads(intermediate ?? junk)],
        [leaf, leaf.subarray(0, -1)],
        Buffer.concat([leaf, junk]),
        Buffer.concat([leaf, intermediate ?? junk]).subarray(0, -1)
      ]
      for (const certificates of attempts) {
        assert.match(outcome(X509Svid.fromDer({ certificates, privateKey })), /^Malformed: /)
      }
    })
  )

  itAtEpoch("PEM that holds none, half a block, or blocks of another kind", () =>
    Effect.gen(function* () {
      const { certificatesPem, privateKeyPem } = yield* arrange()
      const attempts = [
        "",
        "nonsense",
        certificatesPem.slice(0, 100),
        certificatesPem.replace("-----BEGIN", "----BEGIN"),
        certificatesPem.replaceAll("CERTIFICATE", "TRUSTED CERTIFICATE"),
        certificatesPem.replace("-----END CERTIFICATE", "-----END X509 CRL"),
        certificatesPem.replace(/\n[A-Za-z0-9+/]/, "\n!"),
        certificatesPem.replace(/[A-Za-z0-9+/](=*\n-----END)/, "$1")
      ]
      for (const certificates of attempts) {
        assert.match(outcome(X509Svid.fromPem({ certificates, privateKey: privateKeyPem })), /^Malformed: /)
      }
    })
  )

  itAtEpoch("keys that cannot be read, are encrypted, or are two; and no message repeats a key", () =>
    Effect.gen(function* () {
      const { certificates, certificatesPem, privateKey, privateKeyPem } = yield* arrange()
      const text = Redacted.value(privateKeyPem)
      const other = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey
      const encrypted = other.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" })
      const attempts = [
        "",
        text.slice(0, -40),
        text.replace(/\n[A-Za-z0-9+/]{4}/, "\nAAAA"),
        text.replace("BEGIN PRIVATE KEY", "BEGIN  PRIVATE KEY"),
        text + text,
        text + other.export({ type: "pkcs8", format: "pem" }),
        encrypted.toString(),
        certificatesPem
      ]
      for (const attempt of attempts) {
        const svid = X509Svid.fromPem({ certificates: certificatesPem, privateKey: attempt })
        assert.match(outcome(svid), /^Malformed: /)
        const error = Either.getOrThrow(Either.flip(svid))
        assertHidden(
          `${error} ${error.message} ${error.stack} ${JSON.stringify(error)} ${inspect(error, { depth: 9 })}`,
          privateKey
        )
      }
      const der = pkcs8(privateKey)
      for (const key of [
        new Uint8Array(0),
        der.subarray(0, -1),
        Buffer.concat([der, Buffer.of(0)]),
        Buffer.alloc(64)
      ]) {
        const svid = X509Svid.fromDer({ certificates, privateKey: key })
        assert.match(outcome(svid), /^Malformed: the private key/)
        assertHidden(inspect(Either.getOrThrow(Either.flip(svid)), { depth: 9, showHidden: true }), privateKey)
      }
    })
  )
})

describe("an SVID in print", () => {
  itAtEpoch("hides its key in every form, alone and inside of others", () =>
    Effect.gen(function* () {
      const { bundle, issue } = yield* shared
      const svid = yield* issue({ hint: "internal" })
      const context = X509Context.make({ svid, bundles: X509BundleSet.of(bundle) })
      const forms: ReadonlyArray<(value: unknown) => string> = [
        String,
        (value) => `${value}`,
        (value) => JSON.stringify(value),
        (value) => JSON.stringify(value, null, 2),
        (value) => inspect(value),
        (value) => inspect(value, { depth: null, showHidden: true, getters: true }),
        (value) => inspect(value, { depth: null, customInspect: false, showHidden: true, maxArrayLength: null }),
        (value) => Inspectable.format(value),
        (value) => Inspectable.toStringUnknown(value),
        (value) => JSON.stringify(Inspectable.toJSON(value))
      ]
      for (const form of forms) {
        for (const value of [
          svid,
          { ...svid },
          [svid],
          { svid },
          context,
          Either.right(svid),
          new Error("x", { cause: svid })
        ]) {
          assertHidden(form(value), svid.privateKey)
        }
      }
    })
  )

  itAtEpoch("tells what it is", () =>
    Effect.gen(function* () {
      const svid = yield* Effect.flatMap(shared, ({ issue }) => issue({ path: "/api" }))
      assert.deepStrictEqual(JSON.parse(JSON.stringify(svid)), {
        _id: "@agentweave/spiffe/X509Svid",
        spiffeId: "spiffe://example.org/api",
        serialNumber: svid.serialNumber,
        fingerprint: svid.fingerprint,
        notBefore: "1969-12-31T23:59:00.000Z",
        notAfter: "1970-01-01T01:00:00.000Z",
        certificates: 2,
        privateKey: "<redacted>"
      })
      assert.include(inspect(svid), "spiffe://example.org/api")
      assert.strictEqual(String(X509Svid.privateKeyPem(svid)), "<redacted>")
    })
  )
})

describe("X509Svid.validate", () => {
  const judge = (
    svid: X509Svid.X509Svid,
    bundles: X509BundleSet.X509BundleSet,
    now: number,
    purposes?: readonly [PeerVerifier.Purpose]
  ) => outcome(X509Svid.validate(svid, { bundles, now, verifier: PeerVerifier.make(), purposes }))

  itAtEpoch("passes an SVID that its peers will accept, and no other", () =>
    Effect.gen(function* () {
      const { bundle, issue, issuer, rotateRoot } = yield* shared
      const bundles = X509BundleSet.of(bundle)
      const svid = yield* issue({ ttl: "10 minutes" })
      assert.strictEqual(judge(svid, bundles, 0), "fine")
      assert.strictEqual(judge(svid, bundles, 600_000), "fine")
      assert.match(judge(svid, bundles, 600_001), /^Expired: own SVID spiffe:\/\/example.org\/workload: /)
      assert.match(judge(svid, bundles, -60_001), /^NotYetValid: /)
      assert.match(judge(svid, X509BundleSet.empty, 0), /^InvalidSvid: .*\[bundle\]$/)
      const retired = yield* Effect.flatMap(rotateRoot(), (rotated) => rotated.retireOldRoots)
      assert.match(judge(svid, X509BundleSet.of(retired.bundle), 0), /^InvalidSvid: .*\[trusted-path\]$/)
      assert.isDefined(issuer)
    })
  )

  itAtEpoch("asks for both purposes unless told one", () =>
    Effect.gen(function* () {
      const { bundle, issue } = yield* shared
      const bundles = X509BundleSet.of(bundle)
      const svid = yield* issue({ extendedKeyUsage: ["clientAuth"] })
      assert.match(judge(svid, bundles, 0), /^InvalidSvid: .*\[leaf-extended-key-usage\]$/)
      assert.match(judge(svid, bundles, 0, ["ServerAuth"]), /^InvalidSvid: /)
      assert.strictEqual(judge(svid, bundles, 0, ["ClientAuth"]), "fine")
      const server = yield* issue({ extendedKeyUsage: ["serverAuth"] })
      assert.match(judge(server, bundles, 0), /^InvalidSvid: /)
    })
  )
})

it("an SVID is not built without checks: there is no constructor that skips them", () => {
  assert.sameMembers(Object.keys(X509Svid), [
    "fromPem",
    "fromDer",
    "certificatesPem",
    "privateKeyPem",
    "validate",
    "validUntil",
    "x509Certificates"
  ])
})
