// The rules for the project's Markdown: each relative link, heading and included file is there, and READMEs stay short.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { dirname, join, normalize } from "node:path"

/** Most lines of the README of the root. */
const maxReadmeLines = 150

const markdownIn = (folder) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".md") && !/(^|[/\\])(node_modules|dist|\.[^/\\]+)[/\\]/.test(path))
    .map((path) => join(folder, path))

/** Every Markdown file of the project. */
export const markdownFiles = () => [
  ...readdirSync(".").filter((name) => name.endsWith(".md")),
  ...readdirSync("packages")
    .filter((name) => !name.startsWith("."))
    .flatMap((name) => markdownIn(join("packages", name)))
]

/** Of a heading, as GitHub and VitePress make it. */
const anchorOf = (heading) =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, "")
    .trim()
    .replace(/\s/g, "-")

const withoutCode = (text) => text.replace(/^```[\s\S]*?^```$/gm, "").replace(/`[^`\n]*`/g, "")

const anchorsOf = (file) =>
  new Set(Array.from(readFileSync(file, "utf8").matchAll(/^#+ (.*)$/gm), ([, heading]) => anchorOf(heading)))

const linkProblem = (file, link) => {
  if (/^[a-z]+:/.test(link)) return undefined
  if (link.startsWith("/")) return "a link is relative, so that it works in the repository too"
  const [path, anchor] = link.split("#")
  const target = path === "" ? file : normalize(join(dirname(file), path))
  if (!existsSync(target)) return `expected a file ${target}`
  if (anchor === undefined) return undefined
  return statSync(target).isFile() && anchorsOf(target).has(anchor)
    ? undefined
    : `expected a heading #${anchor} in ${target}`
}

const includeProblem = (file, path) => {
  const target = normalize(join(dirname(file), path.replace(/[#{].*$/, "").trim()))
  return existsSync(target) ? undefined : `expected a file ${target}`
}

/** What is wrong with a Markdown file, each problem a sentence. */
const problemsOf = (file) => {
  const text = readFileSync(file, "utf8")
  const links = Array.from(withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g), ([, link]) => [
    link,
    linkProblem(file, link)
  ])
  const includes = Array.from(text.matchAll(/^(?:<<<|<!--@include:) *([^\n>]+?) *(?:-->)?$/gm), ([, path]) => [
    path,
    includeProblem(file, path)
  ])
  return [...links, ...includes].flatMap(([to, problem]) =>
    problem === undefined ? [] : [`${file}: ${to}: ${problem}`]
  )
}

/** What is wrong with the READMEs: too long, or without an example. */
const readmeProblems = (published) => {
  const lines = readFileSync("README.md", "utf8").split("\n").length
  return [
    ...(lines > maxReadmeLines ? [`README.md: expected at most ${maxReadmeLines} lines, got ${lines}`] : []),
    ...published
      .map((name) => `packages/${name}/README.md`)
      .filter((file) => !/^```(ts|sh)$/m.test(readFileSync(file, "utf8")))
      .map((file) => `${file}: expected an example`)
  ]
}

/** Every problem there is. */
export const markdownProblems = (published) => [...markdownFiles().flatMap(problemsOf), ...readmeProblems(published)]
