// Every exported name of the published packages has a sentence of its own in its doc comment, not tags alone.
import { readdirSync, readFileSync } from "node:fs"

const exported = /^export (?:declare )?(?:abstract )?(?:const|interface|type|class|function|namespace) (\w+)/

/** The doc comment that ends right above a line: its text without tags; empty where there is none. */
const sentenceAbove = (lines, index) => {
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
  const tags = text.findIndex((line) => line.startsWith("@"))
  return (tags === -1 ? text : text.slice(0, tags)).join(" ").trim()
}

/** One line for each exported name without a sentence. */
export const undocumented = (packages) =>
  packages.flatMap((name) => {
    const folder = `packages/${name}/src`
    const files = readdirSync(folder).filter((file) => file.endsWith(".ts"))
    return files.flatMap((file) => {
      const lines = readFileSync(`${folder}/${file}`, "utf8").split("\n")
      return lines.flatMap((line, index) => {
        const found = exported.exec(line)?.[1]
        if (found === undefined || sentenceAbove(lines, index) !== "") return []
        return [`${folder}/${file}:${index + 1}: expected a doc comment with a sentence for ${found}`]
      })
    })
  })
