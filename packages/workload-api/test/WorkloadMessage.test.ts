import { WorkloadMessage } from "@agentweave/workload-api"
import { describe, expect, it } from "@effect/vitest"
import { Either, Redacted } from "effect"
import fc from "fast-check"
import protobuf from "protobufjs"

// The messages once more, for another implementation of protobuf to read and write (workloadapi.proto).
const { root } = protobuf.parse(`
  syntax = "proto3";
  message X509SVIDResponse {
    repeated X509SVID svids = 1;
    repeated bytes crl = 2;
    map<string, bytes> federated_bundles = 3;
  }
  message X509SVID {
    string spiffe_id = 1;
    bytes x509_svid = 2;
    bytes x509_svid_key = 3;
    bytes bundle = 4;
    string hint = 5;
  }
  message X509BundlesResponse {
    repeated bytes crl = 1;
    map<string, bytes> bundles = 2;
  }
`)
const Reference = root.lookupType("X509SVIDResponse")
const ReferenceBundles = root.lookupType("X509BundlesResponse")

const bytes = fc.uint8Array({ maxLength: 300 })
const text = fc.string({ unit: "grapheme", maxLength: 20 })
const svid = fc.record({ spiffeId: text, x509Svid: bytes, key: bytes, bundle: bytes, hint: text })
const bundles = fc.array(fc.tuple(text, bytes), { maxLength: 4 })
const response = fc.record({ svids: fc.array(svid, { maxLength: 4 }), bundles })

type Response = typeof response extends fc.Arbitrary<infer A> ? A : never

const toMessage = ({ bundles, svids }: Response): WorkloadMessage.X509SvidResponse => ({
  svids: svids.map(({ key, ...svid }) => ({ ...svid, x509SvidKey: Redacted.make(key) })),
  federatedBundles: new Map(bundles)
})

const hex = (value: Uint8Array): string => Buffer.from(value).toString("hex")

/** A message in a form two implementations can be compared by. */
const plain = (message: WorkloadMessage.X509SvidResponse) => ({
  svids: message.svids.map((svid) => [
    svid.spiffeId,
    hex(svid.x509Svid),
    hex(Redacted.value(svid.x509SvidKey)),
    hex(svid.bundle),
    svid.hint
  ]),
  bundles: Array.from(message.federatedBundles, ([id, der]) => [id, hex(der)]).sort()
})

const encode = (message: WorkloadMessage.X509SvidResponse): Uint8Array =>
  Redacted.value(WorkloadMessage.encodeX509SvidResponse(message))

const decode = (encoded: Uint8Array) => Either.map(WorkloadMessage.decodeX509SvidResponse(encoded), plain)

const limits = WorkloadMessage.defaultLimits

describe("the messages of the X.509-SVID profile", () => {
  it("have the field numbers of workloadapi.proto", () => {
    const message = toMessage({
      svids: [
        { spiffeId: "a", x509Svid: Uint8Array.of(1), key: Uint8Array.of(2), bundle: Uint8Array.of(3), hint: "h" }
      ],
      bundles: [["b", Uint8Array.of(4)]]
    })
    expect(hex(encode(message))).toBe("0a0f0a0161120101" + "1a0102" + "220103" + "2a0168" + "1a060a016212" + "0104")
    const encoded = WorkloadMessage.encodeX509BundlesResponse({ bundles: new Map([["b", Uint8Array.of(4)]]) })
    expect(hex(encoded)).toBe("12060a0162120104")
  })

  it("are read as they were written", () => {
    fc.assert(
      fc.property(response, (given) => {
        const message = toMessage(given)
        expect(decode(encode(message))).toStrictEqual(Either.right(plain(message)))
      }),
      { numRuns: 200 }
    )
  })

  it("are written so that another implementation reads the same", () => {
    fc.assert(
      fc.property(response, (given) => {
        const message = toMessage(given)
        const read = Reference.toObject(Reference.decode(encode(message)), { defaults: true, bytes: Uint8Array })
        expect({
          svids: read["svids"].map((svid: Record<string, never>) => [
            svid["spiffeId"],
            hex(svid["x509Svid"] ?? none),
            hex(svid["x509SvidKey"] ?? none),
            hex(svid["bundle"] ?? none),
            svid["hint"]
          ]),
          bundles: Object.entries<Uint8Array>(read["federatedBundles"])
            .map(([id, der]) => [id, hex(der)])
            .sort()
        }).toStrictEqual(plain(message))
      }),
      { numRuns: 200 }
    )
  })

  it("are read as another implementation writes them, with a CRL that is passed over", () => {
    fc.assert(
      fc.property(response, bytes, (given, crl) => {
        const message = toMessage(given)
        const written = Reference.encode({
          svids: given.svids.map(({ key, ...svid }) => ({ ...svid, x509SvidKey: key })),
          crl: [crl],
          federatedBundles: Object.fromEntries(message.federatedBundles)
        }).finish()
        expect(decode(written)).toStrictEqual(Either.right(plain(message)))
      }),
      { numRuns: 200 }
    )
  })

  it("of bundles alone are written and read by both", () => {
    fc.assert(
      fc.property(bundles, bytes, (entries, crl) => {
        const message = { bundles: new Map(entries) }
        const written = ReferenceBundles.encode({ crl: [crl], bundles: Object.fromEntries(message.bundles) }).finish()
        for (const encoded of [written, WorkloadMessage.encodeX509BundlesResponse(message)]) {
          const read = Either.getOrThrow(WorkloadMessage.decodeX509BundlesResponse(encoded))
          expect(Array.from(read.bundles, ([id, der]) => [id, hex(der)]).sort()).toStrictEqual(
            Array.from(message.bundles, ([id, der]) => [id, hex(der)]).sort()
          )
        }
      }),
      { numRuns: 100 }
    )
  })
})

const none = new Uint8Array(0)

describe("bytes that are no message", () => {
  it("are refused or read, and never more than that: no byte sequence throws", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (input) => {
        const svids = WorkloadMessage.decodeX509SvidResponse(input)
        const bundles = WorkloadMessage.decodeX509BundlesResponse(input)
        if (Either.isLeft(svids)) expect(svids.left._tag).toBe("InvalidMessageError")
        if (Either.isLeft(bundles)) expect(bundles.left._tag).toBe("InvalidMessageError")
      }),
      { numRuns: 2000 }
    )
  })

  /** protobufjs takes a field of a known number for a field of its declared type, whatever type is on the wire. */
  const isLengthDelimited = (encoded: Uint8Array, depth = 0): boolean => {
    const reader = protobuf.Reader.create(encoded)
    while (reader.pos < reader.len) {
      const tag = reader.uint32()
      if ((tag & 7) !== 2) return false
      const value = reader.bytes()
      const isMessage = depth === 0 && (tag >>> 3 === 1 || tag >>> 3 === 3)
      if (isMessage && !isLengthDelimited(value, 1)) return false
    }
    return true
  }

  it("and that are read are read by the other implementation too", () => {
    let readable = 0
    fc.assert(
      fc.property(response, fc.nat(), fc.nat(255), (given, at, byte) => {
        const encoded = Uint8Array.from(encode(toMessage(given)))
        if (encoded.length === 0) return
        encoded[at % encoded.length] = byte
        if (Either.isLeft(WorkloadMessage.decodeX509SvidResponse(encoded)) || !isLengthDelimited(encoded)) return
        readable++
        expect(() => Reference.decode(encoded)).not.toThrow()
      }),
      { numRuns: Number(process.env["RUNS"] ?? 500) }
    )
    expect(readable).toBeGreaterThan(50)
  })

  const refused: ReadonlyArray<readonly [title: string, hex: string, says: string]> = [
    ["a tag that is cut", "80", "truncated varint at offset 0"],
    ["a length that is cut", "0a80", "truncated varint at offset 1"],
    ["a field longer than the message", "0a0261", "field longer than what holds it at offset 2"],
    ["a field inside longer than its SVID", "0a030a0561", "field longer than what holds it at offset 2"],
    ["a length beyond every buffer", "0affffffffffffffff7f", "field longer than what holds it at offset 10"],
    ["a varint of eleven bytes", "0a8080808080808080808001", "varint longer than ten bytes at offset 1"],
    ["field number zero", "0200", "illegal field number at offset 0"],
    ["a field number above 2^29 - 1", "82808080100161", "illegal field number at offset 0"],
    ["a group", "0b0c", "wire type 3 at offset 0"],
    ["an unknown wire type", "0e", "wire type 6 at offset 0"],
    ["a fixed64 that is cut", "0901020304", "field longer than what holds it at offset 1"],
    ["a fixed32 that is cut", "0d010203", "field longer than what holds it at offset 1"],
    ["a string that is not UTF-8", "0a030a01ff", "a string that is not UTF-8"]
  ]
  for (const [title, input, says] of refused) {
    it(`are refused: ${title}`, () => {
      const result = WorkloadMessage.decodeX509SvidResponse(Buffer.from(input, "hex"))
      expect(Either.isLeft(result) && result.left).toMatchObject({ reason: "Malformed", description: says })
    })
  }

  it("fields that are unknown, of whatever type, are skipped", () => {
    const svid = "0a03" + "0a0161"
    const unknown = `38ff0139${"00".repeat(8)}3d${"00".repeat(4)}3a0161`
    expect(decode(Buffer.from(`${unknown}${svid}${unknown}`, "hex"))).toStrictEqual(
      Either.right({ svids: [["a", "", "", "", ""]], bundles: [] })
    )
  })

  it("a field of a known number and another type is skipped too", () => {
    expect(decode(Buffer.from("0801", "hex"))).toStrictEqual(Either.right({ svids: [], bundles: [] }))
  })

  it("a byte order mark is a character of a string like any other", () => {
    const hint = "\ufeffinternal"
    const message = toMessage({ svids: [{ spiffeId: "", x509Svid: none, key: none, bundle: none, hint }], bundles: [] })
    expect(decode(encode(message))).toStrictEqual(Either.right(plain(message)))
  })

  it("a field that comes twice has its last value", () => {
    const result = decode(Buffer.from("0a060a01610a0162" + "1a060a0162120104" + "1a060a0162120105", "hex"))
    expect(result).toStrictEqual(Either.right({ svids: [["b", "", "", "", ""]], bundles: [["b", "05"]] }))
  })
})

describe("limits", () => {
  const many = (count: number) => Array.from({ length: count }, (_, index) => index)
  const empty = { spiffeId: "a", x509Svid: none, key: none, bundle: none, hint: "" }

  it("of SVIDs and bundles are kept exactly", () => {
    const cases = [
      { message: toMessage({ svids: many(limits.maxSvids).map(() => empty), bundles: [] }), ok: true },
      { message: toMessage({ svids: many(limits.maxSvids + 1).map(() => empty), bundles: [] }), ok: false },
      { message: toMessage({ svids: [], bundles: many(limits.maxBundles).map((i) => [`${i}`, none]) }), ok: true },
      { message: toMessage({ svids: [], bundles: many(limits.maxBundles + 1).map((i) => [`${i}`, none]) }), ok: false }
    ]
    for (const { message, ok } of cases) {
      const result = WorkloadMessage.decodeX509SvidResponse(encode(message))
      expect(Either.isRight(result)).toBe(ok)
      if (Either.isLeft(result)) expect(result.left.reason).toBe("LimitExceeded")
    }
  })

  it("of FetchX509Bundles are kept exactly", () => {
    const message = {
      bundles: new Map<string, Uint8Array>([
        ["a", none],
        ["b", none]
      ])
    }
    const encoded = WorkloadMessage.encodeX509BundlesResponse(message)
    const read = (maxBundles: number) =>
      Either.isRight(WorkloadMessage.decodeX509BundlesResponse(encoded, { maxSvids: 0, maxBundles }))
    expect([read(1), read(2)]).toStrictEqual([false, true])
  })
})
