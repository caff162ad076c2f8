// Every exported name of the published packages has a sentence of its own in its doc comment, not tags alone, a category out
// of one set, and, where users call it to make or change something, an example. `npm run check` compiles the examples.
import { readdirSync, readFileSync } from "node:fs"

const exported = /^export (?:declare )?(?:abstract )?(?:const|interface|type|class|function|namespace) (\w+)/

/** One set for all packages. */
const categories = new Set([
  "models",
  "errors",
  "tags",
  "constructors",
  "layers",
  "combinators",
  "operations",
  "guards",
  "getters",
  "conversions",
  "schemas",
  "config",
  "constants",
  "metrics",
  "symbols",
  "programs"
])

const withExample = new Set(["constructors", "layers", "combinators"])

/** The doc comment that ends right above a line, as lines without asterisks; none where there is no comment. */
const commentAbove = (lines, index) => {
  let end = index - 1
  while (end >= 0 && /^(?:\/\/|@)/.test(lines[end])) end--
  const text = []
  for (let at = end; at >= 0 && (text.length > 0 || lines[at].trim().endsWith("*/")); at--) {
    text.unshift(
      lines[at]
        .replace(/^\s*\/?\*+\/?/, "")
        .replace(/\*\/\s*$/, "")
        .trim()
    )
    if (lines[at].trim().startsWith("/**")) break
  }
  return text
}

const sentenceOf = (comment) => {
  const tags = comment.findIndex((line) => line.startsWith("@"))
  return (tags === -1 ? comment : comment.slice(0, tags)).join(" ").trim()
}

const tagOf = (comment, tag) => {
  const found = comment.find((line) => line === `@${tag}` || line.startsWith(`@${tag} `))
  return found?.slice(tag.length + 1).trim()
}

/** What a doc comment lacks; nothing more is asked of the further signatures of an overloaded function. */
const lacks = (comment, isFurtherOverload) => {
  if (sentenceOf(comment) === "") return "a doc comment with a sentence"
  if (isFurtherOverload || tagOf(comment, "internal") !== undefined) return undefined
  const category = tagOf(comment, "category")
  if (!categories.has(category)) return `a @category out of ${[...categories].join(", ")} (got ${category ?? "none"})`
  if (!withExample.has(category) || tagOf(comment, "deprecated") !== undefined) return undefined
  return tagOf(comment, "example") === undefined ? "an @example" : undefined
}

/** One line for each exported name whose doc comment lacks something. */
export const undocumented = (packages) =>
  packages.flatMap((name) => {
    const folder = `packages/${name}/src`
    const files = readdirSync(folder).filter((file) => file.endsWith(".ts"))
    return files.flatMap((file) => {
      const lines = readFileSync(`${folder}/${file}`, "utf8").split("\n")
      const seen = new Set()
      return lines.flatMap((line, index) => {
        const found = exported.exec(line)?.[1]
        if (found === undefined) return []
        const isFurtherOverload = line.startsWith("export function") && seen.has(found)
        if (line.startsWith("export function")) seen.add(found)
        const lacking = lacks(commentAbove(lines, index), isFurtherOverload)
        return lacking === undefined ? [] : [`${folder}/${file}:${index + 1}: expected ${lacking} for ${found}`]
      })
    })
  })
