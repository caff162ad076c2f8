import { statSync } from "node:fs"
import { basename } from "node:path"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

const conditions = ["@agentweave/source", "node", "import", "module", "default"]

/** Processes that run tests side by side. More than there are cores: many tests wait for sockets. */
const workers = 3

/** The files that take longest, in this order: for their load or their waits rather than their size. */
const long = ["rotationLoad", "rotationExpiry", "poolModel", "identityFederation", "auditCrash", "rotation", "refusals"]

/** Each process takes the next file when it is done with one. The long files go first, so that all end at the same time. */
class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    return files
      .map((file) => {
        const rank = long.indexOf(basename(file.moduleId, ".test.ts"))
        return { file, rank: rank === -1 ? long.length : rank, size: statSync(file.moduleId).size }
      })
      .sort((a, b) => a.rank - b.rank || b.size - a.size || a.file.moduleId.localeCompare(b.file.moduleId))
      .map(({ file }) => file)
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
    // Most of what tests make is garbage at once: a young generation of this size is collected a quarter as often.
    poolOptions: { forks: { execArgv: ["--max-semi-space-size=64"] } },
    sequence: { sequencer: LongestFirst },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    projects: [{ extends: true, test: { name: "packages", include: ["packages/*/test/**/*.test.ts"] } }]
  }
})
