import * as Either from "effect/Either"
import { type Pieces, runAtOnce } from "../pieces.js"

/** A PEM block: its label and the bytes it encodes (RFC 7468). */
export interface Block {
  readonly label: string
  readonly bytes: Buffer
}

const begin = /^-----BEGIN ([A-Z0-9 ]+)-----$/
const base64 = /^[A-Za-z0-9+/]+={0,2}$/

/** After how many lines others may run. */
const linesAtOnce = 2048

/**
 * The blocks of a PEM text, read in steps. Text between blocks is let through, as RFC 7468 section 2 does; within a block only
 * base64 is. The refusal names the line and never repeats it: it may be part of a key.
 */
export function* read(text: string): Pieces<Either.Either<ReadonlyArray<Block>, string>> {
  const blocks: Array<Block> = []
  let label: string | undefined
  let body: Array<string> = []
  for (const [index, untrimmed] of text.split(/\r\n|\r|\n/).entries()) {
    if (index % linesAtOnce === linesAtOnce - 1) yield
    const line = untrimmed.trim()
    if (label === undefined) {
      label = begin.exec(line)?.[1]
      body = []
      if (label === undefined && line.startsWith("-----")) return Either.left(`stray PEM boundary in line ${index + 1}`)
      continue
    }
    if (line !== `-----END ${label}-----`) {
      if (line.startsWith("-----")) return Either.left(`PEM block not ended before line ${index + 1}`)
      body.push(line)
      continue
    }
    const encoded = body.join("")
    if (!base64.test(encoded) || encoded.length % 4 !== 0) {
      return Either.left(`PEM block that ends in line ${index + 1} is not base64`)
    }
    blocks.push({ label, bytes: Buffer.from(encoded, "base64") })
    label = undefined
  }
  return label === undefined ? Either.right(blocks) : Either.left("PEM block without an end")
}

/** {@link read} in one piece. */
export const parse = (text: string): Either.Either<ReadonlyArray<Block>, string> => runAtOnce(read(text))

/** One block, 64 characters a line. */
export const encode = (label: string, bytes: Uint8Array): string => {
  const encoded = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64")
  return `-----BEGIN ${label}-----\n${encoded.replace(/.{1,64}/g, "$&\n")}-----END ${label}-----\n`
}
