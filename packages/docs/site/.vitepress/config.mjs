import { defineConfig } from "vitepress"

const packages = ["spiffe", "transport", "transport-node", "workload-api", "testkit", "cluster", "cli", "inspector"]

const pages = [
  [/(^|\/)SECURITY\.md/, "/security"],
  [/(^|\/)CHANGELOG\.md/, "/changelog"],
  [/(^|\/)CONTRIBUTING\.md/, "/contributing"],
  [/(^|\/)AUDIT_FORMAT\.md/, "/audit-format"],
  ...packages.map((name) => [new RegExp(`(^|/)${name}(/README\\.md)?$`), `/packages/${name}`]),
  [/examples\/src\/patterns/, "/cookbook/patterns"],
  [/examples\/src\/composition/, "/cookbook/composition"],
  [/examples\/src\/opentelemetry\.ts/, "/cookbook/opentelemetry"],
  [/examples\/src\/cluster\.ts/, "/cookbook/cluster"],
  [/examples\/src\/quickstart\.ts/, "/cookbook/quickstart"],
  [/examples\/src\/recipes\/service\.ts/, "/cookbook/service"],
  [/examples\/src\/recipes/, "/cookbook/protocols"],
  [/public\/observability\/dashboard\.json/, "/observability/dashboard.json"],
  [/public\/observability\/alerts\.yaml/, "/observability/alerts.yaml"],
  [/transport\/src\/AuditEvent\.ts/, "/api/modules/_agentweave_transport.AuditEvent.html"]
]

/** Where a link of the repository leads on the site: links in Markdown are relative to their file, also in what is included. */
const onSite = (link) => {
  const [path, anchor] = link.split("#")
  const [, page] = /docs\/site\/(.*)\.md$/.exec(path) ?? []
  if (page !== undefined) return `/${page}${anchor === undefined ? "" : `#${anchor}`}`
  const found = pages.find(([pattern]) => pattern.test(path))
  return found === undefined ? undefined : `${found[1]}${anchor === undefined ? "" : `#${anchor}`}`
}

/** Links into the repository go to the site's page of the same content; a source without one is named and not linked. */
const repositoryLinks = (md) => {
  md.core.ruler.push("repository-links", ({ tokens }) => {
    for (const { children } of tokens) {
      let closes = false
      for (const token of children ?? []) {
        const link = token.type === "link_open" ? token.attrGet("href") : null
        if (link !== null && !/^([a-z]+:|#)/.test(link)) {
          const to = onSite(link)
          if (to !== undefined) token.attrSet("href", to)
          else if (/\.ts$|\/src\//.test(link)) {
            token.type = "text"
            closes = true
          }
          if (to !== undefined && /^\/(api|observability)\//.test(to)) token.attrSet("target", "_self")
        }
        if (token.type === "link_close" && closes) {
          token.type = "text"
          closes = false
        }
      }
    }
  })
}

const item = (text, link) => ({ text, link })

export default defineConfig({
  title: "AgentWeave transport",
  description: "Verified connections to named peers, as Effect values",
  lang: "en",
  head: [["link", { rel: "icon", type: "image/svg+xml", href: "/icon.svg" }]],
  transformHtml: (html) => html.replace('<div class="VPContent is-home"', '<div role="main" class="VPContent is-home"'),
  ignoreDeadLinks: [/^\/(api|observability)\//],
  // The examples show more than a phone is wide: they scroll by themselves.
  markdown: {
    config: (md) => md.use(repositoryLinks),
    theme: { light: "github-light-high-contrast", dark: "github-dark-high-contrast" }
  },
  themeConfig: {
    search: { provider: "local" },
    outline: [2, 3],
    nav: [
      item("Guide", "/guide/first-call"),
      item("Cookbook", "/cookbook/"),
      item("Benchmarks", "/benchmarks"),
      item("Security", "/security"),
      { ...item("API", "/api/index.html"), target: "_self" }
    ],
    sidebar: [
      {
        text: "Guide",
        items: [
          item("Why", "/guide/why"),
          item("First call", "/guide/first-call"),
          item("Identity sources", "/guide/identity"),
          item("Policies", "/guide/policies"),
          item("Sockets", "/guide/sockets"),
          item("Audit and telemetry", "/guide/audit"),
          item("Rotation", "/guide/rotation"),
          item("Testing", "/guide/testing"),
          item("Kubernetes with SPIRE", "/guide/kubernetes"),
          item("Inspector", "/guide/inspector"),
          item("Operating it", "/guide/operations")
        ]
      },
      {
        text: "Migrating",
        items: [
          item("From the Python module", "/guide/migrating-python"),
          item("From https.Agent", "/guide/migrating-https-agent"),
          item("From a mesh", "/guide/migrating-mesh")
        ]
      },
      {
        text: "Cookbook",
        items: [
          item("All recipes", "/cookbook/"),
          item("Patterns", "/cookbook/patterns"),
          item("Another order", "/cookbook/composition"),
          item("Protocols and libraries", "/cookbook/protocols"),
          item("A whole service", "/cookbook/service"),
          item("OpenTelemetry", "/cookbook/opentelemetry"),
          item("Cluster", "/cookbook/cluster"),
          item("Two workloads", "/cookbook/quickstart")
        ]
      },
      { text: "Packages", items: packages.map((name) => item(name, `/packages/${name}`)) },
      {
        text: "Reference",
        items: [
          item("Security", "/security"),
          item("Audit file format", "/audit-format"),
          item("Benchmarks", "/benchmarks"),
          item("Changelog", "/changelog"),
          item("Contributing", "/contributing")
        ]
      }
    ]
  }
})
