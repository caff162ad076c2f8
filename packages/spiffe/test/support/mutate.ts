import { Buffer } from "node:buffer"

/** Numbers that are the same in every run (mulberry32). */
export const makeRandom = (seed: number) => {
  let state = seed
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const below = (limit: number): number => Math.floor(next() * limit)
  const pick = <A>(items: readonly [A, ...ReadonlyArray<A>]): A => items[below(items.length)] ?? items[0]
  const bytes = (length: number): Buffer => Buffer.from(Array.from({ length }, () => below(256)))
  return { next, below, pick, bytes }
}

export type Random = ReturnType<typeof makeRandom>

/** A copy with one to three changes: bits flipped, bytes set, removed, inserted, doubled, or the end cut off. */
export const mutate = (random: Random, input: Uint8Array): Buffer => {
  let bytes = Buffer.from(input)
  for (let changes = 1 + random.below(3); changes > 0; changes--) {
    const at = random.below(Math.max(bytes.length, 1))
    const tail = bytes.subarray(at)
    const head = bytes.subarray(0, at)
    switch (random.below(bytes.length === 0 ? 1 : 6)) {
      case 0:
        bytes = Buffer.concat([head, random.bytes(1 + random.below(4)), tail])
        break
      case 1:
        bytes = Buffer.from(bytes)
        bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << random.below(8)), at)
        break
      case 2:
        bytes = Buffer.from(bytes)
        bytes.writeUInt8(random.pick([0, 1, 0x30, 0x7f, 0x80, 0x81, 0xff, random.below(256)]), at)
        break
      case 3:
        bytes = Buffer.concat([head, tail.subarray(1 + random.below(4))])
        break
      case 4:
        bytes = Buffer.concat([head, tail.subarray(0, 16), tail])
        break
      default:
        bytes = random.below(4) === 0 ? Buffer.from(head) : bytes
    }
  }
  return bytes
}
