/** Text that came from a file, made harmless for a terminal. */

/** Controls, and what changes the direction or the shape of the text around it. */
const steering = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Cs}]/gu

const escape = (character: string): string => `\\u{${character.codePointAt(0)?.toString(16) ?? ""}}`

/** One line of text, in which nothing can steer a terminal. */
export const printable = (text: string): string => text.replace(steering, escape)

/** JSON in printable ASCII. */
export const asciiJson = (value: unknown): string =>
  JSON.stringify(value).replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
