import { readFileSync } from "node:fs"
import { describe, expect, it } from "@effect/vitest"
import { load, names } from "../../benchmarks/src/registry.js"
import { chartsOf, type Recorded } from "../site/benchmarkCharts.js"

const recorded: Recorded = JSON.parse(readFileSync(new URL("../../benchmarks/floors.json", import.meta.url), "utf8"))
const charts = chartsOf(recorded)

describe("the charts of the benchmarks page", () => {
  it("show every ratio that was recorded, each once", () => {
    const shown = charts.flatMap(({ bars }) =>
      bars.map(({ baseline, contender, ratio }) => [`${contender} / ${baseline}`, ratio] as const)
    )
    const all = Object.values(recorded).flatMap((rows) => Object.entries(rows))
    expect(shown.map(([row]) => row).toSorted()).toStrictEqual(all.map(([row]) => row).toSorted())
    expect(new Map(shown)).toStrictEqual(new Map(all))
  })

  it("say which way is better as the benchmark does", async () => {
    for (const name of names) {
      const { unit } = await load(name)
      const ofBenchmark = chartsOf({ [name]: recorded[name] ?? {} })
      for (const { better, title } of ofBenchmark)
        expect(better, title).toBe(unit.better === "higher" ? "more" : "less")
    }
  })
})
