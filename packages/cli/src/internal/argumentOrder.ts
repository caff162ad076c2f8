/**
 * The order of the words of a command line. The parser of `@effect/cli` wants options before arguments; people write them
 * anywhere.
 */

/** Commands that have subcommands. */
const groups: ReadonlySet<string> = new Set(["audit", "svid", "bundle"])

/** Options without a value. */
const switches: ReadonlySet<string> = new Set(["--json", "--follow", "--watch", "--help", "-h", "--version"])

/** The words that name a command, such as `audit tail`. */
export const commandPath = (args: ReadonlyArray<string>): ReadonlyArray<string> => {
  const end = args.findIndex((word) => word.startsWith("-"))
  const words = end === -1 ? args : args.slice(0, end)
  return words.slice(0, groups.has(words[0] ?? "") ? 2 : 1)
}

/** Whether a path names a command, and not a group or nothing. */
export const isCommand = (path: ReadonlyArray<string>): boolean => path.length === (groups.has(path[0] ?? "") ? 2 : 1)

/** Puts the arguments of a command behind its options. Text behind `--` stays where it is. */
export const optionsFirst = (words: ReadonlyArray<string>): ReadonlyArray<string> => {
  const options: Array<string> = []
  const others: Array<string> = []
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? ""
    if (word === "--") return [...options, ...others, ...words.slice(i)]
    if (!word.startsWith("-")) {
      others.push(word)
      continue
    }
    options.push(word)
    const value = words[i + 1]
    if (switches.has(word) || word.includes("=") || value === undefined) continue
    options.push(value)
    i++
  }
  return [...options, ...others]
}
