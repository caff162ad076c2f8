/** An encoding that DER does not allow, and where it stands. Never carries content. */
export class DerError extends Error {
  override readonly name = "DerError"
}

/** One element, and at the same time a cursor over its content: `at` is where the next inner element is read. */
export interface Element {
  readonly bytes: Buffer
  readonly tag: number
  /** Offset of the header. */
  readonly start: number
  /** Offset of the content. */
  readonly from: number
  readonly end: number
  at: number
}

export const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31
} as const

/** Stops reading. */
export const fail = (problem: string, offset: number): never => {
  throw new DerError(`${problem} at offset ${offset}`)
}

const byteAt = (bytes: Buffer, offset: number): number => bytes[offset] ?? fail("truncated", offset)

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** A cursor over a whole input. */
export const over = (input: Uint8Array): Element => {
  const bytes = asBuffer(input)
  return { bytes, tag: -1, start: 0, from: 0, end: bytes.length, at: 0 }
}

/** True when nothing is left. */
export const atEnd = (cursor: Element): boolean => cursor.at === cursor.end

/** The tag of the next element, -1 at the end. */
export const peek = (cursor: Element): number => (atEnd(cursor) ? -1 : byteAt(cursor.bytes, cursor.at))

/** Refuses anything after the last element expected. */
export const finish = (cursor: Element, what: string): void => {
  if (!atEnd(cursor)) fail(`trailing data after ${what}`, cursor.at)
}

/**
 * Reads the next element of any tag and moves past it. X.690 section 10.1: the length is definite and in the fewest
 * octets. Tags above 30 do not occur in a certificate and are refused.
 */
export const next = (cursor: Element, what: string): Element => {
  const { bytes, at: start, end: limit } = cursor
  if (start >= limit) fail(`${what} missing`, start)
  const tag = byteAt(bytes, start)
  if ((tag & 0x1f) === 0x1f) fail(`multi-byte tag in place of ${what}`, start)
  if (start + 1 >= limit) fail(`${what} truncated`, start)
  const first = byteAt(bytes, start + 1)
  let from = start + 2
  let length = first
  if (first >= 0x80) {
    const octets = first & 0x7f
    if (octets === 0) fail(`indefinite length of ${what}`, start)
    if (octets > 4) fail(`length of ${what} too large`, start)
    if (from + octets > limit) fail(`${what} truncated`, start)
    length = 0
    for (let i = 0; i < octets; i++) length = length * 256 + byteAt(bytes, from + i)
    if (length < 0x80 || length < 2 ** (8 * (octets - 1))) fail(`length of ${what} not minimal`, start)
    from += octets
  }
  const end = from + length
  if (end > limit) fail(`${what} longer than what holds it`, start)
  cursor.at = end
  return { bytes, tag, start, from, end, at: from }
}

/** Reads the next element, which must have this tag. */
export const read = (cursor: Element, tag: number, what: string): Element => {
  if (peek(cursor) !== tag) fail(atEnd(cursor) ? `${what} missing` : `unexpected tag in place of ${what}`, cursor.at)
  return next(cursor, what)
}

/** Reads the next element if it has this tag. */
export const optional = (cursor: Element, tag: number, what: string): Element | undefined =>
  peek(cursor) === tag ? next(cursor, what) : undefined

/** The element with its header. */
export const raw = (element: Element): Buffer => element.bytes.subarray(element.start, element.end)

/** The content alone. */
export const content = (element: Element): Buffer => element.bytes.subarray(element.from, element.end)

export const hex = (element: Element): string => element.bytes.toString("hex", element.from, element.end)

/** One character a byte: nothing is decoded, nothing can fail. */
export const latin1 = (element: Element): string => element.bytes.toString("latin1", element.from, element.end)

/**
 * BOOLEAN: one octet, 00 or FF (X.690 section 11.1). An explicit FALSE where FALSE is the default is let through: it is
 * not DER, but issuers write it and it has one meaning only.
 */
export const boolean = (element: Element, what: string): boolean => {
  const value = element.end - element.from === 1 ? byteAt(element.bytes, element.from) : 1
  if (value !== 0 && value !== 0xff) fail(`${what} is no DER BOOLEAN`, element.start)
  return value === 0xff
}

/** INTEGER that is not negative, without its sign octet (X.690 section 8.3: in the fewest octets). */
export const unsigned = (element: Element, what: string): Buffer => {
  if (element.end === element.from) fail(`${what} is empty`, element.start)
  const first = byteAt(element.bytes, element.from)
  if (first >= 0x80) fail(`${what} is negative`, element.start)
  if (first !== 0 || element.end - element.from === 1) return content(element)
  if (byteAt(element.bytes, element.from + 1) < 0x80) fail(`${what} not minimal`, element.start)
  return element.bytes.subarray(element.from + 1, element.end)
}

/** INTEGER from 0 to 2^31 - 1. */
export const smallUnsigned = (element: Element, what: string): number => {
  const bytes = unsigned(element, what)
  if (bytes.length > 4 || (bytes.length === 4 && byteAt(bytes, 0) >= 0x80)) fail(`${what} too large`, element.start)
  let value = 0
  for (const byte of bytes) value = value * 256 + byte
  return value
}

/** Several times what the longest OIDs in use need, which hold a UUID: writing one out takes its length squared. */
const maxOidOctets = 64

/** OBJECT IDENTIFIER as the hex of its content; every arc in the fewest octets (X.690 section 8.19.2). */
export const oid = (element: Element, what: string): string => {
  if (element.end - element.from > maxOidOctets) fail(`${what} longer than ${maxOidOctets} octets`, element.start)
  let arcStart = true
  for (let i = element.from; i < element.end; i++) {
    const byte = byteAt(element.bytes, i)
    if (arcStart && byte === 0x80) fail(`${what} not minimal`, element.start)
    arcStart = byte < 0x80
  }
  if (!arcStart || element.end === element.from) fail(`${what} is no OBJECT IDENTIFIER`, element.start)
  return hex(element)
}

/** The dotted form of an OBJECT IDENTIFIER given as hex, for messages. */
export const dotted = (oidHex: string): string => {
  const arcs: Array<bigint> = []
  let arc = 0n
  for (const byte of Buffer.from(oidHex, "hex")) {
    arc = (arc << 7n) | BigInt(byte & 0x7f)
    if (byte < 0x80) {
      arcs.push(arc)
      arc = 0n
    }
  }
  const [first = 0n, ...rest] = arcs
  const root = first < 40n ? 0n : first < 80n ? 1n : 2n
  return [root, first - root * 40n, ...rest].join(".")
}

/** BIT STRING of whole octets: no unused bits. */
export const octetBits = (element: Element, what: string): Buffer => {
  if (element.end - element.from < 2 || byteAt(element.bytes, element.from) !== 0) {
    fail(`${what} is no BIT STRING of whole octets`, element.start)
  }
  return element.bytes.subarray(element.from + 1, element.end)
}

/** BIT STRING of at most 16 named bits; bit 0 of the string is bit 0 of the number. Unused bits must be zero. */
export const namedBits = (element: Element, what: string): number => {
  const octets = element.end - element.from - 1
  const unused = element.end > element.from ? byteAt(element.bytes, element.from) : 8
  if (octets < 1 || octets > 2 || unused > 7) fail(`${what} is no BIT STRING of named bits`, element.start)
  if ((byteAt(element.bytes, element.end - 1) & ((1 << unused) - 1)) !== 0) {
    fail(`unused bits of ${what} are set`, element.start)
  }
  let mask = 0
  for (let bit = 0; bit < octets * 8 - unused; bit++) {
    if ((byteAt(element.bytes, element.from + 1 + (bit >> 3)) & (0x80 >> (bit & 7))) !== 0) mask |= 1 << bit
  }
  return mask
}

const digits = (element: Element, at: number, count: number): number => {
  let value = 0
  for (let i = at; i < at + count; i++) {
    const digit = byteAt(element.bytes, i) - 0x30
    if (digit < 0 || digit > 9) fail("a time with something else than digits", element.start)
    value = value * 10 + digit
  }
  return value
}

const daysOfMonth = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

/** UTCTime or GeneralizedTime in the one form RFC 5280 section 4.1.2.5 allows: to the second, in Zulu. */
export const time = (cursor: Element, what: string): number => {
  const element = next(cursor, what)
  const short = element.tag === tags.utcTime
  if (!short && element.tag !== tags.generalizedTime) fail(`${what} is no time`, element.start)
  const yearDigits = short ? 2 : 4
  if (element.end - element.from !== yearDigits + 11 || byteAt(element.bytes, element.end - 1) !== 0x5a) {
    fail(`${what} is not in the form YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ`, element.start)
  }
  const written = digits(element, element.from, yearDigits)
  const year = short ? (written < 50 ? 2000 + written : 1900 + written) : written
  const rest = element.from + yearDigits
  const month = digits(element, rest, 2)
  const day = digits(element, rest + 2, 2)
  const hour = digits(element, rest + 4, 2)
  const minute = digits(element, rest + 6, 2)
  const second = digits(element, rest + 8, 2)
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  const lastDay = month === 2 && leap ? 29 : (daysOfMonth[month - 1] ?? 0)
  if (year < 1950 || day < 1 || day > lastDay || hour > 23 || minute > 59 || second > 59) {
    fail(`${what} is no date of the calendar`, element.start)
  }
  return Date.UTC(year, month - 1, day, hour, minute, second)
}

/** The elements an input is a plain concatenation of, each with its header; nothing else may be in it. */
export const split = (input: Uint8Array, what: string): ReadonlyArray<Buffer> => {
  const cursor = over(input)
  const parts: Array<Buffer> = []
  while (!atEnd(cursor)) {
    if (peek(cursor) !== tags.sequence) fail(`unexpected tag in place of ${what}`, cursor.at)
    parts.push(raw(next(cursor, what)))
  }
  return parts
}
