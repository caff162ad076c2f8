// The imports between the modules of the packages, their tests included: which way they point, and no cycles.
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"

const parts = ["src", "test"]

/** Every TypeScript module in `src` and `test` of every package. */
export const sourceFiles = () =>
  readdirSync("packages").flatMap((name) =>
    parts.flatMap((part) =>
      existsSync(`packages/${name}/${part}`)
        ? readdirSync(`packages/${name}/${part}`, { recursive: true })
            .filter((file) => /\.tsx?$/.test(file))
            .map((file) => `packages/${name}/${part}/${file}`)
        : []
    )
  )

/** An import or a re-export; the text of doc comments, which is indented by an asterisk, is none. */
const statement = /^(?:import|export(?= (?:type )?[{*]))\s+(type\s+)?([^"=]*?)\s*from\s+"([^"]+)"/gm

/** Whether an import statement brings no value. */
const isTypeOnly = (type, clause) => {
  if (type !== undefined) return true
  const names = /^\{([\s\S]*)\}$/.exec(clause.trim())?.[1]
  const withoutComments = names?.replace(/\/\*[\s\S]*?\*\//g, "")
  return withoutComments?.split(",").every((name) => name.trim() === "" || name.trim().startsWith("type ")) ?? false
}

const targetOf = (file, specifier) => {
  if (specifier.startsWith(".")) return normalize(join(dirname(file), specifier)).replace(/\.js$/, ".ts")
  if (!specifier.startsWith("@agentweave/")) return undefined
  const [, name, module = "index"] = specifier.split("/")
  return `packages/${name}/src/${module}.ts`
}

/** For each module the modules it imports, and whether only their types. */
const readGraph = (files) => {
  const known = new Set(files)
  return new Map(
    files.map((file) => {
      const edges = Array.from(readFileSync(file, "utf8").matchAll(statement), ([, type, clause, specifier]) => ({
        target: targetOf(file, specifier),
        typeOnly: isTypeOnly(type, clause)
      }))
      return [file, edges.filter(({ target }) => target !== undefined && known.has(target))]
    })
  )
}

/** The shortest way from one module to another over such edges, if there is one. */
const wayBetween = (graph, from, to, follows) => {
  const before = new Map([[from, undefined]])
  const queue = [from]
  for (const at of queue) {
    for (const edge of graph.get(at)) {
      if (!follows(at, edge) || before.has(edge.target)) continue
      before.set(edge.target, at)
      if (edge.target === to) {
        const way = [to]
        for (let step = at; step !== undefined; step = before.get(step)) way.unshift(step)
        return way
      }
      queue.push(edge.target)
    }
  }
  return undefined
}

/** One line for each set of modules that import one another: values at all, types in a round of more than two. */
const cycles = (graph) => {
  const found = new Map()
  for (const [file, edges] of graph) {
    for (const { target, typeOnly } of edges) {
      const ofValues = typeOnly ? undefined : wayBetween(graph, target, file, (_, edge) => !edge.typeOnly)
      // The way back that is not the direct one: together with this import it is a round of three or more.
      const ofTypes = wayBetween(graph, target, file, (at, edge) => !(at === target && edge.target === file))
      for (const [kind, way] of [
        ["values", ofValues],
        ["types", ofTypes]
      ]) {
        if (way !== undefined)
          found.set(`${kind} ${[...way].sort().join()}`, `cycle of ${kind}: ${[...way, target].join(" -> ")}`)
      }
    }
  }
  return [...found.values()]
}

const packageOf = (file) => file.split("/")[1]
const isTest = (file) => file.split("/")[2] === "test"

/**
 * A test may use the public modules of the packages below its own and those of the test kit, and the helpers of tests on its
 * own floor or below. The internals of a package are for its own tests.
 */
const wayOfTest = (file, target, floors) => {
  const [own, other] = [packageOf(file), packageOf(target)]
  if (own === other) return undefined
  if (isTest(target)) return floors[other] > floors[own] ? "a helper of tests on a floor above" : undefined
  if (target.includes("/src/internal/")) return "the internals of another package"
  return floors[other] > floors[own] && other !== "testkit" ? "a package on a floor above" : undefined
}

const wrongWays = (graph, floors) =>
  Array.from(graph).flatMap(([file, edges]) =>
    edges.flatMap(({ target }) => {
      const problem = isTest(file)
        ? wayOfTest(file, target, floors)
        : isTest(target)
          ? "a test"
          : packageOf(file) !== packageOf(target) && floors[packageOf(target)] >= floors[packageOf(file)]
            ? "a package that is not on a floor below"
            : undefined
      return problem === undefined ? [] : [`${file} imports ${target}: ${problem}`]
    })
  )

/** One line for each import that points the wrong way, and for each cycle. */
export const moduleProblems = (floors) => {
  const graph = readGraph(sourceFiles())
  return [...wrongWays(graph, floors), ...cycles(graph)]
}
