/** Finds bytes of a secret in a text, in every form a program is likely to print bytes in. */

const window = 8

/** Windows side by side: whoever prints 15 bytes in a row prints one of them. */
const windows = (secret: Uint8Array): ReadonlyArray<Buffer> =>
  Array.from({ length: Math.floor(secret.length / window) }, (_, index) =>
    Buffer.from(secret.subarray(index * window, (index + 1) * window))
  )

/**
 * Base64 of a window that begins at the first or last of the three positions within a group, without what its neighbours
 * decide. At the second position only four characters would be left, and those any certificate may hold; the windows
 * before and after are at other positions.
 */
const base64 = (bytes: Buffer): ReadonlyArray<string> =>
  [0, 2].flatMap((shift) => {
    const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString("base64")
    const known = text.slice(shift === 0 ? 0 : 4, -4)
    return [known, known.replaceAll("+", "-").replaceAll("/", "_")]
  })

const forms = (bytes: Buffer): ReadonlyArray<string> => [
  bytes.toString("hex"),
  bytes.toString("hex").toUpperCase(),
  bytes.toString("latin1"),
  Array.from(bytes).join(","),
  ...base64(bytes)
]

/** Whether one of the texts has bytes of the secret. Spaces and line ends between the bytes of a dump hide nothing. */
export const leaks = (texts: Iterable<string>, secrets: Iterable<Uint8Array>): boolean => {
  const text = Array.from(new Set(texts)).join("\u0000")
  const packed = text.replaceAll(/\s+/g, "")
  return Array.from(secrets).some((secret) =>
    windows(secret)
      .flatMap(forms)
      .some((form) => packed.includes(form) || text.includes(form))
  )
}
