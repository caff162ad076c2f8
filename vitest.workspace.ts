import { defineConfig } from "vitest/config"

// Run as vitest's configuration (`vitest --config vitest.workspace.ts`): one project a package that has tests.
const conditions = ["@agentweave/source", "node", "import", "module", "default"]

const project = (name: string) => ({
  extends: true as const,
  test: { name, root: `packages/${name}`, include: ["test/**/*.test.ts"] }
})

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: ["@agentweave/source"] } },
  test: {
    pool: "forks",
    testTimeout: 120_000,
    hookTimeout: 120_000,
    projects: ["spiffe", "transport", "transport-node", "testkit", "workload-api", "cli", "examples"].map(project)
  }
})
