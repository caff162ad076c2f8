import { statSync } from "node:fs"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

const conditions = ["@agentweave/source", "node", "import", "module", "default"]

/** Processes that run tests side by side. More than there are cores: many tests wait for sockets. */
const workers = 3

/**
 * A process runs one contiguous part of the sorted files, and their modules are loaded once. Deals the files out by size, so
 * that each part has its share of the long ones.
 */
class Dealt extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const bySize = files
      .map((file) => ({ file, size: statSync(file.moduleId).size }))
      .sort((a, b) => b.size - a.size || a.file.moduleId.localeCompare(b.file.moduleId))
    return Array.from({ length: workers }, (_, hand) => bySize.filter((_, n) => n % workers === hand)).flatMap(
      (dealt) => dealt.map(({ file }) => file)
    )
  }
}

// Run as vitest's configuration (`vitest --config vitest.workspace.ts`).
export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: ["@agentweave/source"] } },
  test: {
    pool: "forks",
    isolate: false,
    minWorkers: workers,
    maxWorkers: workers,
    sequence: { sequencer: Dealt },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    projects: [{ extends: true, test: { name: "packages", include: ["packages/*/test/**/*.test.ts"] } }]
  }
})
