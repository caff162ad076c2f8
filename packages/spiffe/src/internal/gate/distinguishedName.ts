/** Distinguished names, made comparable (RFC 5280 section 7.1). */
import * as Either from "effect/Either"
import type { Element } from "../der/der.js"
import * as der from "../der/der.js"

interface Attribute {
  /** Hex of the OBJECT IDENTIFIER's content. */
  readonly type: string
  /** The text of the value; undefined for a value that is no text. */
  readonly text: string | undefined
  readonly value: string
}

const utf8 = new TextDecoder("utf-8", { fatal: true })
const utf16 = new TextDecoder("utf-16be", { fatal: true })

const utf32 = (bytes: Buffer): string => {
  let text = ""
  for (let at = 0; at + 4 <= bytes.length; at += 4) text += String.fromCodePoint(bytes.readUInt32BE(at))
  return text
}

const latin1 = (bytes: Buffer): string => bytes.toString("latin1")

/** UTF8String, NumericString, PrintableString, TeletexString, IA5String, UniversalString, BMPString. */
const decoders: ReadonlyMap<number, (bytes: Buffer) => string> = new Map([
  [0x0c, (bytes: Buffer) => utf8.decode(bytes)],
  [0x12, latin1],
  [0x13, latin1],
  [0x14, latin1],
  [0x16, latin1],
  [0x1c, utf32],
  [0x1e, (bytes: Buffer) => utf16.decode(bytes)]
])

const readAttribute = (relative: Element): Attribute => {
  const attribute = der.read(relative, der.tags.sequence, "attribute")
  const type = der.oid(der.read(attribute, der.tags.oid, "attribute"), "attribute")
  const value = der.next(attribute, "attribute")
  der.finish(attribute, "attribute")
  return { type, text: decoders.get(value.tag)?.(der.content(value)), value: der.raw(value).toString("hex") }
}

/** The relative names of a Name that is given as DER, one character a byte; undefined when it cannot be read. */
const readName = (name: string): ReadonlyArray<ReadonlyArray<Attribute>> | undefined =>
  Either.getOrUndefined(
    Either.try(() => {
      const whole = der.over(Buffer.from(name, "latin1"))
      const sequence = der.read(whole, der.tags.sequence, "name")
      der.finish(whole, "name")
      const relatives: Array<ReadonlyArray<Attribute>> = []
      while (!der.atEnd(sequence)) {
        const relative = der.read(sequence, der.tags.set, "relative name")
        const attributes: Array<Attribute> = []
        while (!der.atEnd(relative)) attributes.push(readAttribute(relative))
        relatives.push(attributes)
      }
      return relatives
    })
  )

/** Without case and doubled spaces, whichever way the characters are composed (RFC 4518). */
const fold = (text: string): string => text.normalize("NFKC").toLowerCase().trim().replaceAll(/\s+/g, " ")

const canonicalAttribute = ({ text, type, value }: Attribute): string =>
  text === undefined ? `${type}#${value}` : `${type}=${fold(text)}`

/**
 * A text that begins with another name's if the name is the same or below the other one; undefined when the name cannot be
 * read. Kinds of string are not told apart, as OpenSSL does not.
 */
export const canonicalName = (name: string): string | undefined =>
  readName(name)
    ?.map((relative) => `${JSON.stringify(relative.map(canonicalAttribute).sort())}\n`)
    .join("")

const emailAddress = "2a864886f70d010901"

/** The values of the emailAddress attributes of a name (PKCS#9); one that is no text is given as empty. */
export const emailAddresses = (name: string): ReadonlyArray<string> =>
  readName(name)?.flatMap((relative) =>
    relative.flatMap(({ text, type }) => (type === emailAddress ? [text ?? ""] : []))
  ) ?? [""]
