/** Messages of HTTP with a few bytes changed, cut, doubled or moved, the same in every run. */

/** How many messages are tried. More for a night, in slices: `FUZZ_ROUNDS=20000 FUZZ_SEED=1`, then `FUZZ_SEED=2`. */
export const roundsOr = (few: number): number => Number(process.env["FUZZ_ROUNDS"] ?? few)

/** Which messages are tried: each seed gives others. */
export const seed = Number(process.env["FUZZ_SEED"] ?? 20_261_129)

/** Draws an integer from 0 to `below`, without it. */
export type Random = (below: number) => number

/** Numbers that look random and are the same in every run (mulberry32). */
export const numbers = (seed: number): Random => {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

const tokens = [
  "\r\n",
  "\r\n\r\n",
  "\n",
  "\r",
  "\0",
  ":",
  " ",
  "\t",
  "0",
  "-1",
  "ffffffff",
  "chunked",
  "HTTP/1.1 ",
  "100"
]

/** One of the messages, with one to four changes; some of them put a whole other message in. Each character is a byte. */
export const mutate = (random: Random, messages: ReadonlyArray<string>): string => {
  const oneOf = (texts: ReadonlyArray<string>): string => texts[random(texts.length)] ?? ""
  let bytes = oneOf(messages)
  for (let changes = random(4); changes >= 0; changes--) {
    const at = random(bytes.length + 1)
    const length = random(random(2) === 0 ? 3 : 40)
    const between = [
      "",
      String.fromCharCode(random(256)),
      random(tokens.length + 1) === 0 ? oneOf(messages) : oneOf(tokens),
      bytes.slice(at, at + length).repeat(2)
    ]
    bytes = bytes.slice(0, at) + oneOf(between) + bytes.slice(at + length)
  }
  return bytes
}
