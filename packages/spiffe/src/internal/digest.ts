import { createHash } from "node:crypto"

/** SHA-256, lower-case hex. */
export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

/** SHA-256 over a set of texts: their order does not matter, and each is told apart from its neighbours. */
export const sha256OfSet = (members: Iterable<string>): string => {
  const hash = createHash("sha256")
  for (const member of Array.from(members).sort()) hash.update(`${member.length}:${member}`)
  return hash.digest("hex")
}
