/** A writer of DER, right or wrong, and an editor of DER that exists. */
import { Buffer } from "node:buffer"

const lengthOctets = (length: number): Buffer => {
  if (length < 0x80) return Buffer.of(length)
  const octets = Buffer.from(length.toString(16).padStart(length > 0xffff ? 6 : length > 0xff ? 4 : 2, "0"), "hex")
  return Buffer.concat([Buffer.of(0x80 | octets.length), octets])
}

export const tlv = (tag: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.of(tag), lengthOctets(body.length), body])
}

export const sequence = (...parts: ReadonlyArray<Uint8Array>): Buffer => tlv(0x30, ...parts)

export const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex")

/** DER as a tree: a constructed element has children, a primitive one has bytes. */
export interface Node {
  readonly tag: number
  readonly children?: ReadonlyArray<Node>
  readonly bytes?: Buffer
}

const readHeader = (bytes: Buffer, at: number): { readonly from: number; readonly end: number } => {
  const first = bytes.readUInt8(at + 1)
  if (first < 0x80) return { from: at + 2, end: at + 2 + first }
  const octets = first & 0x7f
  const from = at + 2 + octets
  return { from, end: from + bytes.readUIntBE(at + 2, octets) }
}

export const parse = (input: Uint8Array, at = 0): Node => {
  const bytes = Buffer.from(input)
  const tag = bytes.readUInt8(at)
  const { end, from } = readHeader(bytes, at)
  if ((tag & 0x20) === 0) return { tag, bytes: bytes.subarray(from, end) }
  const children: Array<Node> = []
  for (let next = from; next < end; next = readHeader(bytes, next).end) children.push(parse(bytes, next))
  return { tag, children }
}

export const encode = (node: Node): Buffer =>
  tlv(node.tag, ...(node.children?.map(encode) ?? [node.bytes ?? Buffer.alloc(0)]))

/** The node at a path of child indices, replaced by other bytes (or by nothing). */
export const replace = (
  input: Uint8Array,
  path: ReadonlyArray<number>,
  change: (old: Buffer) => Uint8Array
): Buffer => {
  const go = (node: Node, rest: ReadonlyArray<number>): Buffer => {
    const [index, ...deeper] = rest
    if (index === undefined) return Buffer.from(change(encode(node)))
    const parts = (node.children ?? []).map((child, i) => (i === index ? go(child, deeper) : encode(child)))
    return tlv(node.tag, ...parts)
  }
  return go(parse(input), path)
}
