/** The few messages of a TLS 1.2 handshake that carry a chain of certificates (RFC 5246 section 7.4). */

const uint8 = (value: number): Buffer => Buffer.of(value)
const uint16 = (value: number): Buffer => Buffer.of(value >> 8, value & 0xff)
const uint24 = (value: number): Buffer => Buffer.of(value >> 16, (value >> 8) & 0xff, value & 0xff)

const vector = (length: (value: number) => Buffer, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const body = Buffer.concat(parts)
  return Buffer.concat([length(body.length), body])
}

const message = (type: number, ...parts: ReadonlyArray<Uint8Array>): Buffer =>
  Buffer.concat([uint8(type), vector(uint24, ...parts)])

const version = uint16(0x0303)

const maxFragment = 16_384

/** Handshake messages as records. */
const records = (...messages: ReadonlyArray<Buffer>): Buffer => {
  const bytes = Buffer.concat(messages)
  const fragments: Array<Buffer> = []
  for (let at = 0; at < bytes.length; at += maxFragment) {
    fragments.push(uint8(22), version, vector(uint16, bytes.subarray(at, at + maxFragment)))
  }
  return Buffer.concat(fragments)
}

const extension = (type: number, ...body: ReadonlyArray<Uint8Array>): Buffer =>
  Buffer.concat([uint16(type), vector(uint16, ...body)])

/** RFC 5746: no renegotiation, without which OpenSSL 3 does not go on. */
const renegotiationInfo = extension(0xff01, uint8(0))

/** Not a secret, nor is anything of this handshake ever finished. */
const random = Buffer.alloc(32, 1)

const certificate = (chain: ReadonlyArray<Uint8Array>): Buffer =>
  message(11, vector(uint24, ...chain.map((der) => vector(uint24, der))))

const ecdheEcdsa = 0xc02b
const ecdheRsa = 0xc02f

/** A server's messages up to its chain; the cipher is one for the kind of its key. */
export const serverFlight = (chain: ReadonlyArray<Uint8Array>, isRsa: boolean): Buffer => {
  const cipher = uint16(isRsa ? ecdheRsa : ecdheEcdsa)
  const hello = message(2, version, random, uint8(0), cipher, uint8(0), vector(uint16, renegotiationInfo))
  return records(hello, certificate(chain))
}

/** Schemes of signature: ECDSA, RSA-PSS, RSA PKCS#1 with SHA-256 to SHA-512, and Ed25519. */
const signatureSchemes = [0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0807]

/** A client's first message. */
export const clientHello: Buffer = records(
  message(
    1,
    version,
    random,
    uint8(0),
    vector(uint16, uint16(ecdheEcdsa)),
    vector(uint8, uint8(0)),
    vector(
      uint16,
      renegotiationInfo,
      extension(10, vector(uint16, uint16(0x17))),
      extension(11, vector(uint8, uint8(0))),
      extension(13, vector(uint16, ...signatureSchemes.map(uint16)))
    )
  )
)

/** A client's answer to a request for its certificate. */
export const clientChain = (chain: ReadonlyArray<Uint8Array>): Buffer => records(certificate(chain))
