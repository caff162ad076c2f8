import { readFileSync } from "node:fs"
import { AuditEvent, IdentityError, PeerVerificationError, TransportMetrics } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Metric, Option } from "effect"

const read = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8")
const found = (text: string, pattern: RegExp) => Array.from(text.matchAll(pattern), ([, word]) => word ?? "")

const dashboard: { readonly panels: ReadonlyArray<{ readonly targets: ReadonlyArray<{ readonly expr: string }> }> } =
  JSON.parse(read("../site/public/observability/dashboard.json"))
const alerts = read("../site/public/observability/alerts.yaml")
const rules = found(alerts, /^ +expr: ['"](.*)['"]$/gm)
const expressions = [...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)), ...rules]

const source = read("../../transport/src/TransportMetrics.ts")
const metrics = found(source, /"(transport_\w+)"/g)
const histograms = found(source, /Metric\.histogram\(\s*"(transport_\w+)"/g)

/** The series of the metrics that exist, by their names. */
const series = new Set([
  ...metrics.filter((name) => !histograms.includes(name)),
  ...histograms.flatMap((name) => ["bucket", "sum", "count"].map((part) => `${name}_${part}`))
])

describe("the dashboard and the alert rules", () => {
  it("ask for series that exist, and every metric is on the dashboard", () => {
    const asked = expressions.flatMap((expression) => found(expression, /(transport_\w+)/g))
    expect(asked.filter((name) => !series.has(name))).toStrictEqual([])
    const shown = new Set(asked.map((name) => name.replace(/_(bucket|sum|count)$/, "")))
    expect(metrics.filter((name) => !shown.has(name))).toStrictEqual([])
  })

  it("have an expression for each panel and rule, with brackets that match", () => {
    expect(dashboard.panels.length).toBeGreaterThan(10)
    expect(found(alerts, /alert: (\w+)/g)).toHaveLength(rules.length)
    for (const expression of expressions) {
      for (const [open, close] of ["()", "{}", "[]"]) {
        expect(expression.split(open ?? "").length, expression).toBe(expression.split(close ?? "").length)
      }
    }
  })

  it("select by values that labels have", () => {
    const values = new Set<string>([
      ...["Client", "Server", "Refused", "Established", "Open", "Closed", "HalfOpen", "waiting", "inUse", "idle"],
      ...["Fresh", "Stale", "Expired", "None"],
      ...PeerVerificationError.PeerVerificationReason.literals,
      ...IdentityError.IdentityErrorReason.literals,
      ...AuditEvent.IdentityProblem.fields.problem.literals
    ])
    const selected = expressions
      .flatMap((expression) => found(expression, /(?:freshness|problem|reason|state|outcome)=~?"([^"]*)"/g))
      .flatMap((text) => text.split("|"))
    expect(selected.length).toBeGreaterThan(10)
    expect(selected.filter((value) => !values.has(value))).toStrictEqual([])
  })

  it.effect("select and group by labels that the metrics have", () =>
    Effect.gen(function* () {
      const own = ["job", "instance", "le"]
      const before = { time: 0, side: "Client", connectionId: "c1", address: "127.0.0.1:1" } as const
      TransportMetrics.unsafeObserve({
        ...before,
        _tag: "RequestEnded",
        requestId: "r1",
        peerId: "spiffe://example.org/labels",
        method: "GET",
        path: "/",
        attempt: 1,
        status: 200,
        durationMillis: 1
      })
      const pairs = yield* Metric.snapshot
      const requests = pairs.find(
        ({ metricKey }) =>
          metricKey.name === "transport_requests_total" &&
          metricKey.tags.some(({ value }) => value === "spiffe://example.org/labels")
      )
      expect(requests?.metricKey.tags.map(({ key }) => key).toSorted()).toStrictEqual(["outcome", "peer", "side"])
      expect(Option.isOption(requests?.metricKey.description)).toBe(true)
      const documented = new Set([...own, ...found(read("../site/guide/operations.md"), /`(\w+)`/g)])
      const used = expressions.flatMap((expression) =>
        found(expression, /by \(([^)]*)\)/g).flatMap((labels) => labels.split(", "))
      )
      expect(used.filter((label) => !documented.has(label))).toStrictEqual([])
    })
  )
})
