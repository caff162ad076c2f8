/** Looks for secrets in everything a value can be printed as. */
import { inspect } from "node:util"
import { Cause, Inspectable } from "effect"

const window = 8

const forms = (bytes: Buffer): ReadonlyArray<string> => [
  bytes.toString("hex"),
  bytes.toString("hex").toUpperCase(),
  bytes.toString("latin1"),
  Array.from(bytes).join(","),
  // Base64 at each of the three positions in a group, without the characters that the neighbours have a part in.
  ...[0, 1, 2].flatMap((shift) => {
    const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString("base64")
    const known = text.slice(shift === 0 ? 0 : 4, -4)
    return [known, known.replaceAll("+", "-").replaceAll("/", "_")]
  })
]

/** The key in windows side by side: who prints 15 of its bytes in a row prints one of them. Blanks hide nothing. */
export const holdsKey = (text: string, key: Uint8Array): boolean => {
  const packed = text.replaceAll(/\s+/g, "")
  return Array.from({ length: Math.floor(key.length / window) }, (_, n) =>
    Buffer.from(key.subarray(n * window, (n + 1) * window))
  ).some((bytes) => forms(bytes).some((form) => packed.includes(form) || text.includes(form)))
}

/** Every way in which a value is usually printed, as one text. */
export const printed = (value: unknown): string =>
  [
    String(value),
    value instanceof Error ? `${value.message} ${value.stack}` : "",
    `${JSON.stringify(value)}`,
    Inspectable.toStringUnknown(value),
    inspect(value, { depth: 12, maxArrayLength: null, maxStringLength: null }),
    Cause.pretty(Cause.fail(value), { renderErrorCause: true }),
    Cause.pretty(Cause.die(value), { renderErrorCause: true }),
    JSON.stringify(Cause.fail(value))
  ].join("\n")
