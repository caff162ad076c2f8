import { Buffer } from "node:buffer"
import * as CertificateAuthority from "@agentweave/testkit/CertificateAuthority"
import { assert, describe } from "@effect/vitest"
import { Effect, Either } from "effect"
import { readCertificate, splitCertificates } from "../src/internal/der/certificate.js"
import { encode, hex, type Node, parse, replace, sequence, tlv } from "./support/der.js"
import { itAtEpoch, makeShared } from "./support/gate.js"

const shared = makeShared()

/** A proper leaf with a path length's worth of everything the reader looks at. */
const leaf = Effect.runSync(
  Effect.cached(
    Effect.flatMap(shared, ({ issuer }) =>
      Effect.map(
        CertificateAuthority.issue(issuer, { dnsNames: ["a.test"], serialNumber: "1234" }),
        ({ certificates }) => Buffer.from(certificates[0])
      )
    )
  )
)

const problem = (der: Uint8Array): string =>
  Either.match(readCertificate(der), { onLeft: (error) => error.message, onRight: () => "readable" })

/** Every row: what is done to a readable certificate, and what the reader then says (its beginning). */
const rows = (table: ReadonlyArray<readonly [name: string, change: (der: Buffer) => Uint8Array, says: string]>) => {
  for (const [name, change, says] of table) {
    itAtEpoch(`${name}: ${says}`, () =>
      Effect.gen(function* () {
        const der = yield* leaf
        assert.strictEqual(problem(der), "readable")
        assert.strictEqual(problem(change(der)).slice(0, says.length), says)
      })
    )
  }
}

const tbs = { version: [0, 0], serial: [0, 1], algorithm: [0, 2], issuer: [0, 3], validity: [0, 4], spki: [0, 6] }
const extensionList = [0, 7, 0]

const at = (path: ReadonlyArray<number>, bytes: Uint8Array) => (der: Buffer) => replace(der, path, () => bytes)

const appended = (path: ReadonlyArray<number>, bytes: Uint8Array) => (der: Buffer) =>
  replace(der, path, (old) => {
    const node = parse(old)
    return tlv(node.tag, ...(node.children?.map(encode) ?? [node.bytes ?? Buffer.alloc(0)]), bytes)
  })

/** Another value for one extension of the certificate, by its OID. */
const extension = (oid: string, value: Uint8Array) => (der: Buffer) =>
  replace(der, extensionList, (old) =>
    sequence(
      ...(parse(old).children ?? []).map((node) => {
        const [id, ...rest] = node.children ?? []
        const isIt = id?.bytes?.toString("hex") === oid
        const kept = rest.filter((part) => part.tag === 0x01).map(encode)
        return isIt ? sequence(encode(id), ...kept, tlv(0x04, value)) : encode(node)
      })
    )
  )

const withExtensions = (change: (list: ReadonlyArray<Node>) => ReadonlyArray<Uint8Array>) => (der: Buffer) =>
  replace(der, extensionList, (old) => sequence(...change(parse(old).children ?? [])))

const oids = {
  basic: "551d13",
  usage: "551d0f",
  extended: "551d25",
  names: "551d11",
  authority: "551d23",
  subject: "551d0e"
}

describe("the frame is DER and nothing else", () => {
  rows([
    ["encoded again", (der) => encode(parse(der)), "readable"],
    ["a byte after the certificate", (der) => Buffer.concat([der, Buffer.of(0)]), "trailing data after certificate"],
    ["two certificates", (der) => Buffer.concat([der, der]), "trailing data after certificate"],
    ["a byte too few", (der) => der.subarray(0, -1), "certificate longer than what holds it"],
    ["nothing", () => Buffer.alloc(0), "certificate missing"],
    ["a header without length", () => Buffer.of(0x30), "certificate truncated"],
    [
      "another tag",
      (der) => Buffer.concat([Buffer.of(0x31), der.subarray(1)]),
      "unexpected tag in place of certificate"
    ],
    [
      "a length in more octets than needed",
      (der) => Buffer.concat([hex("3083 00"), der.subarray(2)]),
      "length of certificate not minimal"
    ],
    ["a long form for a short length", at(tbs.serial, hex("02 81 02 12 34")), "length of serial number not minimal"],
    [
      "an indefinite length",
      (der) => Buffer.concat([hex("3080"), der.subarray(4), hex("0000")]),
      "indefinite length of certificate"
    ],
    ["a length of five octets", () => hex("30 85 01 00 00 00 00"), "length of certificate too large"],
    ["a length of four octets that lies", () => hex("30 84 ff ff ff ff 00"), "certificate longer than"],
    ["a length cut off", () => hex("30 84 ff ff"), "certificate truncated"],
    ["a multi-byte tag", at([0, 5], hex("1f 81 01 00")), "unexpected tag in place of subject"],
    ["a multi-byte tag where any tag may stand", extension(oids.names, sequence(hex("9f 21 00"))), "multi-byte tag"],
    ["an element more in the certificate", appended([], hex("0500")), "trailing data after signature"],
    ["an element more in the signed part", appended([0], hex("0500")), "trailing data after extensions"],
    ["an element more in the validity", appended(tbs.validity, hex("0500")), "trailing data after validity"],
    ["an element more beside the extensions", appended([0, 7], hex("0500")), "trailing data after extensions"],
    ["an element more in the public key", appended(tbs.spki, hex("0500")), "trailing data after public key"],
    [
      "an element more in the key's algorithm",
      at([...tbs.spki, 0], hex("3015 06072a8648ce3d0201 06082a8648ce3d030107 0500")),
      "trailing data after public key parameters"
    ],
    ["two elements more in the algorithm", appended([1], hex("05000500")), "trailing data after signature parameters"]
  ])

  itAtEpoch("no proper beginning of a certificate is readable", () =>
    Effect.gen(function* () {
      const der = yield* leaf
      for (let length = 0; length < der.length; length++) {
        assert.notStrictEqual(problem(der.subarray(0, length)), "readable", `${length}`)
      }
    })
  )
})

describe("the fields before the extensions", () => {
  const utc = (text: string) => tlv(0x17, Buffer.from(text))
  const generalized = (text: string) => tlv(0x18, Buffer.from(text))
  const notAfter = (bytes: Uint8Array) => (der: Buffer) => replace(der, [...tbs.validity, 1], () => bytes)
  const name = (...parts: ReadonlyArray<Uint8Array>) => at(tbs.issuer, sequence(...parts))
  const commonName = hex("0603 550403")
  rows([
    [
      "version 1, by default",
      (der) => replace(der, tbs.version, () => Buffer.alloc(0)),
      "unexpected tag in place of version"
    ],
    ["version 1", at(tbs.version, hex("a003 020100")), "version is not 3"],
    ["version 2", at(tbs.version, hex("a003 020101")), "version is not 3"],
    ["version 4", at(tbs.version, hex("a003 020103")), "version is not 3"],
    ["two versions", at(tbs.version, hex("a006 020102 020102")), "trailing data after version"],
    ["a version of five octets", at(tbs.version, hex("a007 0205 0100000002")), "version too large"],
    ["serial number 0", at(tbs.serial, hex("020100")), "readable"],
    ["a negative serial number", at(tbs.serial, hex("0201ff")), "serial number is negative"],
    ["an empty serial number", at(tbs.serial, hex("0200")), "serial number is empty"],
    ["a serial number with a needless octet", at(tbs.serial, hex("02020001")), "serial number not minimal"],
    ["a serial number of 20 octets", at(tbs.serial, tlv(2, Buffer.alloc(20, 0x7f))), "readable"],
    ["a serial number of 21 octets", at(tbs.serial, tlv(2, Buffer.alloc(21, 0x7f))), "serial number longer than 20"],
    ["another algorithm outside", at([1], hex("300a 0608 2a8648ce3d040303")), "signature algorithm differs"],
    ["another algorithm inside", at(tbs.algorithm, hex("300a 0608 2a8648ce3d040303")), "signature algorithm differs"],
    ["parameters outside alone", at([1], hex("300c 0608 2a8648ce3d040302 0500")), "signature algorithm differs"],
    ["a signature with unused bits", at([2], hex("0303 01 1234")), "signature is no BIT STRING of whole octets"],
    ["an empty signature", at([2], hex("030100")), "signature is no BIT STRING of whole octets"],
    ["a signature without its first octet", at([2], hex("0300")), "signature is no BIT STRING of whole octets"],
    ["a UTCTime", notAfter(utc("491231235959Z")), "readable"],
    ["a GeneralizedTime", notAfter(generalized("20501231235959Z")), "readable"],
    ["the last second of all", notAfter(generalized("99991231235959Z")), "readable"],
    ["a leap day", notAfter(utc("240229000000Z")), "readable"],
    ["no leap day", notAfter(utc("250229000000Z")), "notAfter is no date of the calendar"],
    ["a leap day of a century", notAfter(generalized("21000229000000Z")), "notAfter is no date of the calendar"],
    ["the 31st of April", notAfter(utc("250431000000Z")), "notAfter is no date of the calendar"],
    ["month 13", notAfter(utc("251301000000Z")), "notAfter is no date of the calendar"],
    ["month 0", notAfter(utc("250001000000Z")), "notAfter is no date of the calendar"],
    ["day 0", notAfter(utc("250100000000Z")), "notAfter is no date of the calendar"],
    ["hour 24", notAfter(utc("250101240000Z")), "notAfter is no date of the calendar"],
    ["minute 60", notAfter(utc("250101006000Z")), "notAfter is no date of the calendar"],
    ["second 60", notAfter(utc("250101000060Z")), "notAfter is no date of the calendar"],
    ["the year 99", notAfter(generalized("00991231235959Z")), "notAfter is no date of the calendar"],
    ["a time without seconds", notAfter(utc("2501010000Z")), "notAfter is not in the form"],
    ["a time with an offset", notAfter(utc("250101000000+0000")), "notAfter is not in the form"],
    ["a local time", notAfter(utc("2501010000000")), "notAfter is not in the form"],
    ["a fraction", notAfter(generalized("20250101000000.5Z")), "notAfter is not in the form"],
    ["a sign in place of a digit", notAfter(utc("25+101000000Z")), "a time with something else than digits"],
    ["a number in place of a time", notAfter(hex("020101")), "notAfter is no time"],
    ["an empty name", name(), "readable"],
    ["a name in UTF-8", name(tlv(0x31, sequence(commonName, tlv(0x0c, Buffer.from("é"))))), "readable"],
    ["a name not in UTF-8", name(tlv(0x31, sequence(commonName, hex("0c02 c328")))), "issuer is not text"],
    ["a name in two bytes a character", name(tlv(0x31, sequence(commonName, hex("1e02 0041")))), "readable"],
    ["half a character of two bytes", name(tlv(0x31, sequence(commonName, hex("1e01 41")))), "issuer is not text"],
    ["a name in four bytes a character", name(tlv(0x31, sequence(commonName, hex("1c04 00000041")))), "readable"],
    ["half a character of four bytes", name(tlv(0x31, sequence(commonName, hex("1c02 0041")))), "issuer is not text"],
    ["a number as a name", name(tlv(0x31, sequence(commonName, hex("020141")))), "issuer is not text"],
    ["a constructed name", name(tlv(0x31, sequence(commonName, hex("2c03 0c0141")))), "issuer is not text"],
    ["an empty part of a name", name(hex("3100")), "issuer with an empty part"],
    ["a part of a name that is no SET", name(hex("3000")), "unexpected tag in place of issuer"],
    ["an attribute without a value", name(tlv(0x31, sequence(commonName))), "issuer missing"],
    [
      "an attribute with two values",
      name(tlv(0x31, sequence(commonName, hex("0c00 0c00")))),
      "trailing data after issuer"
    ],
    ["an attribute of no type", name(tlv(0x31, sequence(hex("0600 0c00")))), "issuer is no OBJECT IDENTIFIER"]
  ])
})

describe("the extensions", () => {
  const again = (list: ReadonlyArray<Node>) => list.map(encode)
  const unknown = (...parts: ReadonlyArray<Uint8Array>) =>
    withExtensions((list) => [...again(list), sequence(hex("0603 2a0304"), ...parts)])
  const value = hex("0402 0500")
  rows([
    ["none", withExtensions(() => []), "extensions empty"],
    ["left out", (der) => replace(der, [0, 7], () => Buffer.alloc(0)), "extensions missing"],
    ["one twice", withExtensions((list) => again([...list, ...list.slice(0, 1)])), "extension 2.5.29."],
    ["an unknown one", unknown(value), "readable"],
    ["an unknown one twice", (der) => unknown(value)(unknown(value)(der)), "extension 1.2.3.4 occurs twice"],
    ["critical: TRUE", unknown(hex("0101ff"), value), "readable"],
    ["critical: FALSE, which is the default", unknown(hex("010100"), value), "readable"],
    ["critical: 1, which is BER", unknown(hex("010101"), value), "critical is no DER BOOLEAN"],
    ["critical: two octets", unknown(hex("0102ffff"), value), "critical is no DER BOOLEAN"],
    ["without a value", unknown(), "extension value missing"],
    ["with two values", unknown(value, value), "trailing data after extension value"],
    [
      "basic constraints with a field more",
      extension(oids.basic, hex("3005 0101ff 0500")),
      "trailing data after the fields"
    ],
    ["basic constraints and something after", extension(oids.basic, hex("3000 0500")), "trailing data after extension"],
    ["a negative path length", extension(oids.basic, hex("3006 0101ff 0201ff")), "pathLenConstraint is negative"],
    ["a path length of 2^31", extension(oids.basic, hex("300a 0101ff 0205 0080000000")), "pathLenConstraint too large"],
    ["a path length of 2^31 - 1", extension(oids.basic, hex("3009 0101ff 0204 7fffffff")), "readable"],
    ["key usage without bits", extension(oids.usage, hex("0301 00")), "key usage is no BIT STRING"],
    ["key usage of no octet at all", extension(oids.usage, hex("0300")), "key usage is no BIT STRING"],
    ["key usage of three octets", extension(oids.usage, hex("0304 00808080")), "key usage is no BIT STRING"],
    ["key usage with eight unused bits", extension(oids.usage, hex("0302 0880")), "key usage is no BIT STRING"],
    ["key usage with unused bits set", extension(oids.usage, hex("0302 0781")), "unused bits of key usage are set"],
    ["key usage and something after", extension(oids.usage, hex("0302 0780 0500")), "trailing data after extension"],
    [
      "key usage as a constructed string",
      extension(oids.usage, hex("2304 03020780")),
      "unexpected tag in place of key usage"
    ],
    ["extended key usage without purposes", extension(oids.extended, hex("3000")), "extended key usage empty"],
    ["a purpose with a needless octet", extension(oids.extended, hex("3004 0602 8001")), "key purpose not minimal"],
    ["a purpose cut off", extension(oids.extended, hex("3004 0602 2a81")), "key purpose is no OBJECT IDENTIFIER"],
    ["a purpose of 64 octets", extension(oids.extended, sequence(tlv(6, Buffer.alloc(64, 1)))), "readable"],
    [
      "a purpose of 65 octets",
      extension(oids.extended, sequence(tlv(6, Buffer.alloc(65, 1)))),
      "key purpose longer than"
    ],
    ["names without any", extension(oids.names, hex("3000")), "subject alternative names empty"],
    ["a name of no known form", extension(oids.names, hex("3002 8900")), "unknown form of general name"],
    ["a URI as a constructed string", extension(oids.names, hex("3004 a602 8600")), "unknown form of general name"],
    [
      "an authority key identifier with a field more",
      extension(oids.authority, hex("3002 8300")),
      "trailing data after the fields"
    ],
    ["an empty authority key identifier", extension(oids.authority, hex("3000")), "readable"],
    [
      "a subject key identifier and something after",
      extension(oids.subject, hex("0400 0500")),
      "trailing data after extension"
    ]
  ])
})

describe("what is read", () => {
  itAtEpoch("is what was written", () =>
    Effect.gen(function* () {
      const der = yield* leaf
      const read = Either.getOrThrow(readCertificate(der))
      assert.strictEqual(read.serialNumber, "1234")
      assert.deepStrictEqual([read.notBefore, read.notAfter], [-60_000, 3_600_000])
      assert.deepStrictEqual(read.extensions.subjectAltNames, [
        { form: "dNSName", value: "a.test" },
        { form: "uniformResourceIdentifier", value: "spiffe://example.org/workload" }
      ])
      assert.deepStrictEqual(read.extensions.basicConstraints, { ca: false, pathLength: undefined })
      assert.strictEqual(read.extensions.keyUsage, 1)
      assert.strictEqual(read.signatureAlgorithm.scheme?.name, "ECDSA with sha256")
      assert.deepStrictEqual(read.keyKind, { _tag: "Acceptable", kind: "ec", name: "P-256" })
    })
  )

  itAtEpoch("a view into a larger buffer is read like a copy", () =>
    Effect.gen(function* () {
      const der = yield* leaf
      const padded = Buffer.concat([Buffer.alloc(7, 0xff), der, Buffer.alloc(5, 0xff)])
      const view = new Uint8Array(padded.buffer, padded.byteOffset + 7, der.length)
      assert.deepStrictEqual(readCertificate(view), readCertificate(der))
    })
  )
})

describe("a concatenation", () => {
  itAtEpoch("is taken apart, and is nothing but certificates", () =>
    Effect.gen(function* () {
      const der = yield* leaf
      const both = Either.getOrThrow(splitCertificates(Buffer.concat([der, der])))
      assert.deepStrictEqual(
        both.map((part) => part.toString("hex")),
        Array(2).fill(der.toString("hex"))
      )
      assert.deepStrictEqual(Either.getOrThrow(splitCertificates(Buffer.alloc(0))), [])
      for (const junk of [Buffer.of(0), Buffer.from("0500", "hex"), der.subarray(0, -1)]) {
        assert.isTrue(Either.isLeft(splitCertificates(Buffer.concat([der, junk]))))
      }
    })
  )
})
