import { readFileSync } from "node:fs"
import { expect, it } from "vitest"

it("the README's example is the test next to this one", () => {
  const read = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8")
  expect(read("../README.md")).toContain(read("./example.test.ts"))
})
