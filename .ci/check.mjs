// `npm run check`: every rule of the project that a machine can hold. Stops at the first step that fails.
import { spawnSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { undocumented } from "./documented.mjs"
import { markdownFiles, markdownProblems } from "./markdown.mjs"
import { moduleProblems, sourceFiles } from "./modules.mjs"
import { nameProblems } from "./names.mjs"
import { published } from "./packages.mjs"

/** An arrow may only point down. */
const floors = {
  spiffe: 0,
  transport: 1,
  "transport-node": 2,
  "workload-api": 2,
  testkit: 3,
  cluster: 3,
  inspector: 4,
  // It shows what the inspector has.
  cli: 5,
  interop: 4,
  examples: 5,
  benchmarks: 5,
  docs: 6
}

/** Thrown rather than exited with, so that what a step has made is cleaned up. */
class CheckFailed extends Error {}

const fail = (message) => {
  throw new CheckFailed(message)
}

process.on("uncaughtException", (error) => {
  console.error(error instanceof CheckFailed ? `\ncheck failed: ${error.message}` : error)
  process.exit(1)
})

const run = (title, command, args, options = {}) => {
  const started = performance.now()
  const done = spawnSync(command, args, { stdio: "inherit", ...options })
  if (done.status !== 0) fail(`${title} (${command} ${args.join(" ")})`)
  console.log(`ok ${title} (${((performance.now() - started) / 1000).toFixed(1)} s)`)
}

const checkFloors = () => {
  for (const name of readdirSync("packages")) {
    if (!(name in floors)) fail(`packages/${name} has no floor: add it to .ci/check.mjs`)
    const manifest = JSON.parse(readFileSync(`packages/${name}/package.json`, "utf8"))
    const imports = { ...manifest.dependencies, ...manifest.peerDependencies }
    for (const dependency of Object.keys(imports)) {
      const target = dependency.startsWith("@agentweave/") ? dependency.slice("@agentweave/".length) : undefined
      if (target !== undefined && floors[target] >= floors[name]) {
        fail(
          `packages/${name} (floor ${floors[name]}) depends on ${dependency} (floor ${floors[target]}): an arrow may only point down`
        )
      }
    }
  }
  console.log("ok package floors")
}

/** Every public module of every built package, resolved as a consumer of the packages would: types and values. */
const checkConsumer = () => {
  const modules = published.flatMap((name) =>
    readdirSync(`packages/${name}/dist`)
      .filter((file) => /^(index|[A-Z].*)\.js$/.test(file))
      .map((file) => (file === "index.js" ? `@agentweave/${name}` : `@agentweave/${name}/${file.slice(0, -3)}`))
  )
  const folder = mkdtempSync(join("packages", ".consumer-"))
  try {
    const source = modules.map((module, i) => `import * as m${i} from "${module}"`)
    source.push(`export const modules = [${modules.map((_, i) => `m${i}`).join(", ")}]`)
    // The same text twice: one for the compiler, one to run.
    writeFileSync(join(folder, "index.mts"), `${source.join("\n")}\n`)
    writeFileSync(join(folder, "index.mjs"), `${source.join("\n")}\n`)
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({
        extends: "../../tsconfig.json",
        compilerOptions: { customConditions: [] },
        include: ["index.mts"]
      })
    )
    run("types of the built packages", "npx", ["tsc", "-p", folder])
    run(`imports of ${modules.length} built modules`, process.execPath, [join(folder, "index.mjs")])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const checkModules = () => {
  const problems = moduleProblems(floors)
  if (problems.length > 0) fail(`imports\n  ${problems.join("\n  ")}`)
  console.log("ok imports of modules and tests point down, and form no cycle")
}

const checkNames = () => {
  const problems = nameProblems(published)
  if (problems.length > 0) fail(`one name with two meanings\n  ${problems.join("\n  ")}`)
  console.log("ok names of files and of public types, one meaning each")
}

const checkMarkdown = () => {
  const problems = markdownProblems(published)
  if (problems.length > 0) fail(`Markdown\n  ${problems.join("\n  ")}`)
  console.log(`ok links of ${markdownFiles().length} Markdown files`)
}

const checkDocumented = () => {
  const problems = undocumented(published)
  if (problems.length > 0) fail(`doc comments\n  ${problems.join("\n  ")}`)
  console.log("ok a sentence, a category and an example for every exported name that asks for them")
}

const internals = /\b(?:unsafeMap|getFiberRefs?|(?:default)?RuntimeFlags|withFiberRuntime|currentDefaultServices)\b/

/** One file a package knows the inside of Effect's fiber. */
const checkInternals = () => {
  const found = sourceFiles().filter(
    (file) =>
      published.some((name) => file.startsWith(`packages/${name}/src/`)) &&
      !file.endsWith("/internal/fiber.ts") &&
      internals.test(readFileSync(file, "utf8"))
  )
  if (found.length > 0) fail(`expected Effect's internals in fiber.ts alone, found them in\n  ${found.join("\n  ")}`)
  console.log("ok Effect's internals in fiber.ts alone")
}

/** A line that a function or a method begins with, after its indentation; classes and tables of values are none. */
const beginsFunction =
  /^(\s*)(?:export )?(?:private |override |static |readonly |async )*(?:const |function\*? )?(?!export|abstract|class|interface|type|if|for|while|switch|return)(\w+)\b(?!.*= [{[]$).*(?:\(|=>|\{|<)$/

const indentationOf = (line) => line.length - line.trimStart().length

/** Functions of more than 80 lines; one ends where its own indentation is reached again. */
const longFunctions = (lines) =>
  lines.flatMap((line, index) => {
    const [, indentation, name] = beginsFunction.exec(line) ?? []
    if (name === undefined || indentation.length > 2) return []
    const after = lines.slice(index + 1)
    const next = after.findIndex((other) => other.trim() !== "" && indentationOf(other) <= indentation.length)
    const length = next + (/^\s*[})]/.test(after[next] ?? "") ? 2 : 1)
    return length > 80 ? [`${name} has ${length} lines`] : []
  })

/** Not a rule: places to look at. */
const listLongFiles = () => {
  for (const file of sourceFiles()) {
    const lines = readFileSync(file, "utf8").split("\n")
    if (lines.length > 401) console.log(`   ${file} has ${lines.length - 1} lines`)
    if (file.split("/")[2] !== "src") continue
    for (const found of longFunctions(lines)) console.log(`   ${file}: ${found}`)
  }
}

/** Every TypeScript example in a doc comment or in Markdown, type-checked against the sources. */
const checkExamples = () => {
  const files = markdownFiles()
  for (const name of published) {
    for (const file of readdirSync(`packages/${name}/src`)) {
      if (file.endsWith(".ts")) files.push(`packages/${name}/src/${file}`)
    }
  }
  const folder = mkdtempSync(join("packages", ".examples-"))
  try {
    let count = 0
    for (const file of files) {
      const text = readFileSync(file, "utf8")
      const lines = file.endsWith(".ts") ? text.replace(/^[ \t]*\* ?/gm, "") : text
      for (const [, code] of lines.matchAll(/^```ts\n([\s\S]*?)^```$/gm)) {
        writeFileSync(join(folder, `${String(++count).padStart(3, "0")}-${file.replaceAll("/", "-")}.mts`), code)
      }
    }
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({
        extends: "../../tsconfig.json",
        compilerOptions: { noUnusedLocals: false },
        include: ["*.mts"]
      })
    )
    run(`types of ${count} examples in doc comments and Markdown`, "npx", ["tsc", "-p", folder])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

run("types, tests and examples included", "npx", ["tsc", "-p", "tsconfig.json"])
run("types of the inspector's page", "npx", ["tsc", "-p", "packages/inspector/page"])
run("lint, format, imports between floors, import cycles", "npx", ["biome", "ci", "."])
checkFloors()
checkModules()
checkNames()
checkDocumented()
checkInternals()
listLongFiles()
checkMarkdown()
checkExamples()
run("build", "npm", ["run", "--silent", "build"])
for (const name of published)
  run(`publint ${name}`, "npx", ["publint", "--strict", "--pack", "false", `packages/${name}`])
checkConsumer()
