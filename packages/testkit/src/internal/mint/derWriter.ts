/**
 * Just enough of a DER writer for the extensions whose bytes a test must be able to choose freely.
 */

const lengthOctets = (length: number): ReadonlyArray<number> => {
  if (length < 0x80) return [length]
  const octets: Array<number> = []
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) octets.unshift(rest % 256)
  return [0x80 | octets.length, ...octets]
}

/** One element: tag, length, contents. */
export const tlv = (tag: number, ...contents: ReadonlyArray<Uint8Array>): Uint8Array<ArrayBuffer> => {
  const length = contents.reduce((sum, part) => sum + part.length, 0)
  const header = [tag, ...lengthOctets(length)]
  const bytes = new Uint8Array(header.length + length)
  bytes.set(header)
  let offset = header.length
  for (const part of contents) {
    bytes.set(part, offset)
    offset += part.length
  }
  return bytes
}

export const sequence = (...contents: ReadonlyArray<Uint8Array>): Uint8Array<ArrayBuffer> => tlv(0x30, ...contents)

const headerLength = (der: Uint8Array, offset: number): number => {
  const first = der[offset + 1] ?? 0
  return first < 0x80 ? 2 : 2 + (first & 0x7f)
}

/**
 * A copy of a certificate with the lowest bit of its serial number flipped: still well-formed, and no longer what its
 * issuer signed.
 */
export const alterSerialNumber = (certificate: Uint8Array): Uint8Array => {
  const tbs = headerLength(certificate, 0)
  const version = tbs + headerLength(certificate, tbs)
  // [0] EXPLICIT INTEGER 2 (v3), always five bytes, then the serial number's INTEGER.
  const serial = version + 5
  const last = serial + 1 + (certificate[serial + 1] ?? 0)
  const altered = Uint8Array.from(certificate)
  altered[last] = (altered[last] ?? 0) ^ 1
  return altered
}
