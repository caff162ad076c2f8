/**
 * Just enough of a DER writer for certificates whose bytes a test must be able to choose freely.
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

export const true_ = Uint8Array.of(0x01, 0x01, 0xff)

export const null_ = Uint8Array.of(0x05, 0x00)

/** Throws where the text is no hexadecimal: half of a number is another number. */
export const fromHex = (text: string): Uint8Array => {
  if (!/^([0-9A-Fa-f]{2})+$/.test(text)) throw new TypeError(`expected hexadecimal digits in pairs, got ${text}`)
  return Buffer.from(text, "hex")
}

/** A number that is not negative, from its bytes, the highest first. */
export const integer = (bytes: Uint8Array): Uint8Array => {
  const first = bytes.findIndex((byte) => byte !== 0)
  const magnitude = first === -1 ? Uint8Array.of(0) : bytes.subarray(first)
  return tlv(0x02, ...((magnitude[0] ?? 0) < 0x80 ? [] : [Uint8Array.of(0)]), magnitude)
}

/** The same of a number as JavaScript has it. */
export const smallInteger = (value: number): Uint8Array => {
  const bytes = Buffer.alloc(6)
  bytes.writeUIntBE(value, 0, 6)
  return integer(bytes)
}

export const bitString = (octets: Uint8Array, unusedBits = 0): Uint8Array =>
  tlv(0x03, Uint8Array.of(unusedBits), octets)

const base128 = (value: number): ReadonlyArray<number> => {
  const octets = [value % 128]
  for (let rest = Math.floor(value / 128); rest > 0; rest = Math.floor(rest / 128)) octets.unshift(128 + (rest % 128))
  return octets
}

/** From its dotted form. */
export const objectIdentifier = (dotted: string): Uint8Array => {
  if (!/^[0-2](\.\d+)+$/.test(dotted))
    throw new TypeError(`expected an object identifier in dotted form, got ${dotted}`)
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number)
  return tlv(0x06, Uint8Array.from([first * 40 + second, ...rest].flatMap(base128)))
}

const digits = (date: Date): string =>
  `${date
    .toISOString()
    .replace(/\.\d+Z$/, "")
    .replace(/\D/g, "")}Z`

/** In whole seconds. */
export const generalizedTime = (date: Date): Uint8Array => tlv(0x18, Buffer.from(digits(date)))

export const utcTime = (date: Date): Uint8Array => tlv(0x17, Buffer.from(digits(date).slice(2)))

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
