import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = fileURLToPath(new URL("../../../", import.meta.url))

const filesOf = (folder: string): ReadonlyArray<string> =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((path) => join(folder, path))

/** The project's documents, and the sources with their comments. */
const documents = [...readdirSync(root), ...filesOf("packages")].filter(
  (path) => !/node_modules|dist/.test(path) && (path.endsWith(".md") || /^packages.[^/\\]+.src.*\.ts$/.test(path))
)

/** A channel, or what makes channels, made under a layer whose scope has ended by the time it is used. */
const outlives =
  /(?:SecureChannel\.make\(\{[^{}]*\}\)|\.acquire\([^()]*\))[\s*]*\.pipe\([\s*]*(?:Scope\.extend\(\w+\),[\s*]*)?Effect\.provide\(/

const shape = `
const billing = yield* SecureChannel.make({
  peer: "spiffe://example.org/billing"
}).pipe(Effect.provide(network.layer))`

describe("documents and comments", () => {
  it("show no channel that outlives the layer of its connector", () => {
    assert.match(shape, outlives)
    assert.isAbove(documents.length, 100)
    assert.deepStrictEqual(
      documents.filter((path) => outlives.test(readFileSync(join(root, path), "utf8"))),
      []
    )
  })

  it("name files of the packages that there are, where CONTRIBUTING says where things stand", () => {
    const named = readFileSync(join(root, "CONTRIBUTING.md"), "utf8").matchAll(/`([\w-]+\/(?:src|test)\/[^`]*\.ts)`/g)
    const files = Array.from(named, ([, file = ""]) => file)
    assert.isAbove(files.length, 50)
    assert.deepStrictEqual(
      files.filter((file) => !existsSync(join(root, "packages", file))),
      []
    )
  })
})
