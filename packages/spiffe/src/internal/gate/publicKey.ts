/** Whether a certificate's key is one, and not only of an acceptable kind. */
import type { CurveName } from "../der/algorithms.js"
import type { Certificate } from "../der/certificate.js"

/** y² = x³ - 3x + b over a prime field (FIPS 186-5, SP 800-186 section 3.2.1). */
interface Curve {
  readonly octets: number
  readonly p: bigint
  readonly b: bigint
}

const curves: Readonly<Record<CurveName, Curve>> = {
  "P-256": {
    octets: 32,
    p: 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n,
    b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn
  },
  "P-384": {
    octets: 48,
    p: 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n,
    b: 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn
  },
  "P-521": {
    octets: 66,
    p: 2n ** 521n - 1n,
    b: 0x0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00n
  }
}

const integer = (bytes: Buffer): bigint => BigInt(`0x${bytes.toString("hex")}`)

/** The point is the end of the SubjectPublicKeyInfo: that it is uncompressed and whole has been read. */
const isOnCurve = ({ b, octets, p }: Curve, publicKey: Buffer): boolean => {
  const x = integer(publicKey.subarray(-2 * octets, -octets))
  const y = integer(publicKey.subarray(-octets))
  return x < p && y < p && (y * y - (x * x - 3n) * x - b) % p === 0n
}

const isOffCurve = ({ keyKind, publicKey }: Certificate): boolean =>
  keyKind._tag === "Acceptable" && keyKind.kind === "ec" && !isOnCurve(curves[keyKind.name], publicKey)

/** Of an acceptable kind, and a point of its curve where it is said to be on one (RFC 5480 section 2.2). */
export const isKeyUsable = (certificate: Certificate): boolean =>
  certificate.keyKind._tag === "Acceptable" && !isOffCurve(certificate)

export const describeKey = (certificate: Certificate): string =>
  certificate.keyKind._tag === "Acceptable" && isOffCurve(certificate)
    ? `a point that is not on ${certificate.keyKind.name}`
    : certificate.keyKind.name
