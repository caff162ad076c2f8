/**
 * The protobuf wire format, as far as the Workload API uses it: every field it defines is length-delimited
 * (https://protobuf.dev/programming-guides/encoding). Fields of other numbers and types are skipped, as the format asks.
 */

/** A violation of the wire format, and where a reader met it. Never carries content. */
export class WireError extends Error {
  override readonly name = "WireError"
}

/** Stops reading. */
export const fail = (problem: string, offset: number): never => {
  throw new WireError(`${problem} at offset ${offset}`)
}

interface Cursor {
  readonly bytes: Uint8Array
  at: number
}

const wireType = { varint: 0, fixed64: 1, lengthDelimited: 2, fixed32: 5 } as const

/** An unsigned varint of up to 64 bits; what is above 2^53 is not exact, and no length or tag reaches it. */
const varint = (cursor: Cursor): number => {
  const start = cursor.at
  let value = 0
  for (let count = 0; count < 10; count++) {
    const byte = cursor.bytes[cursor.at] ?? fail("truncated varint", start)
    cursor.at++
    value += (byte & 0x7f) * 2 ** (7 * count)
    if (byte < 0x80) return value
  }
  return fail("varint longer than ten bytes", start)
}

const take = (cursor: Cursor, length: number): Uint8Array => {
  const from = cursor.at
  if (length > cursor.bytes.length - from) fail("field longer than what holds it", from)
  cursor.at = from + length
  return cursor.bytes.subarray(from, cursor.at)
}

const skip = (cursor: Cursor, type: number, start: number): void => {
  switch (type) {
    case wireType.varint:
      varint(cursor)
      return
    case wireType.fixed64:
      take(cursor, 8)
      return
    case wireType.fixed32:
      take(cursor, 4)
      return
    default:
      fail(`wire type ${type}`, start)
  }
}

const maxFieldNumber = 2 ** 29 - 1

/** Hands every length-delimited field of a message to `visit`, in order, as a view of the message's bytes. */
export const readFields = (
  message: Uint8Array,
  visit: (field: number, value: Uint8Array, offset: number) => void
): void => {
  const cursor: Cursor = { bytes: message, at: 0 }
  while (cursor.at < message.length) {
    const start = cursor.at
    const tag = varint(cursor)
    const field = Math.floor(tag / 8)
    if (field < 1 || field > maxFieldNumber) fail("illegal field number", start)
    const type = tag % 8
    if (type !== wireType.lengthDelimited) skip(cursor, type, start)
    else visit(field, take(cursor, varint(cursor)), start)
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** A string field: proto3 strings are UTF-8. */
export const text = (value: Uint8Array): string => utf8.decode(value)

const varintOctets = (value: number): ReadonlyArray<number> => {
  const octets: Array<number> = []
  let rest = value
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) octets.push(0x80 | (rest & 0x7f))
  octets.push(rest)
  return octets
}

const concat = (parts: ReadonlyArray<ArrayLike<number>>): Uint8Array => {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let offset = 0
  for (const part of parts) {
    bytes.set(part, offset)
    offset += part.length
  }
  return bytes
}

/** A message from its fields, each already encoded. */
export const message = (...fields: ReadonlyArray<Uint8Array>): Uint8Array => concat(fields)

/** A length-delimited field that is written even when it is empty: an element of a list, a part of a map entry. */
export const element = (field: number, value: Uint8Array): Uint8Array =>
  concat([varintOctets(field * 8 + wireType.lengthDelimited), varintOctets(value.length), value])

/** A bytes field; the default, empty, is not written. */
export const bytes = (field: number, value: Uint8Array): Uint8Array =>
  value.length === 0 ? value : element(field, value)

const encoder = new TextEncoder()

/** A string field; the default, empty, is not written. */
export const string = (field: number, value: string): Uint8Array => bytes(field, encoder.encode(value))
