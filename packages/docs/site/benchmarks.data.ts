// Loaded when the site is built: nothing is measured then.
import { readFileSync } from "node:fs"
import { type Chart, chartsOf } from "./benchmarkCharts.js"

declare const data: ReadonlyArray<Chart>

export { data }

export default {
  watch: ["../../benchmarks/floors.json"],
  load: ([file]: ReadonlyArray<string>): ReadonlyArray<Chart> => chartsOf(JSON.parse(readFileSync(file ?? "", "utf8")))
}
