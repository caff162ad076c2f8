// One name means one thing: no two modules of the published packages share a file name, and no two public modules of the
// libraries export a type of the same name.
import { readdirSync, readFileSync } from "node:fs"

/** One each per package or module, by design. */
const sharedFiles = new Set(["index.ts", "fiber.ts", "InvalidConfigError.ts"])
/** The options of a module are named after their use in it. */
const isSharedType = (type) => type === "TypeId" || type.endsWith("Options")

/** The libraries; the types of the programs are named after what they show of them. */
const isLibrary = (name) => name !== "cli" && name !== "inspector"

const groups = (entries) => {
  const byName = new Map()
  for (const [name, place] of entries) byName.set(name, (byName.get(name) ?? new Set()).add(place))
  return Array.from(byName).filter(([_, places]) => places.size > 1)
}

const exportedTypes = (path) =>
  Array.from(readFileSync(path, "utf8").matchAll(/^export (?:interface|type|class) (\w+)/gm), ([, name]) => name)

/** One line for each name with more than one meaning. */
export const nameProblems = (packages) => {
  const files = packages.flatMap((name) =>
    readdirSync(`packages/${name}/src`, { recursive: true })
      .filter((file) => file.endsWith(".ts"))
      .map((file) => [file.split("/").at(-1), `packages/${name}/src/${file}`])
  )
  const types = packages.filter(isLibrary).flatMap((name) =>
    readdirSync(`packages/${name}/src`)
      .filter((file) => file.endsWith(".ts"))
      .flatMap((file) => exportedTypes(`packages/${name}/src/${file}`).map((type) => [type, `${name}/${file}`]))
  )
  const describe =
    (kind) =>
    ([name, places]) =>
      `${kind} ${name} in ${Array.from(places).join(" and ")}`
  return [
    ...groups(files.filter(([file]) => !sharedFiles.has(file))).map(describe("file")),
    ...groups(types.filter(([type]) => !isSharedType(type))).map(describe("type"))
  ]
}
