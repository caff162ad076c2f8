import { statSync } from "node:fs"
import { basename } from "node:path"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** Node is given them too: with `import` among them it would load modules of that kind by `require`. */
const conditions = ["@agentweave/source", "node"]

/** Processes that run tests side by side. More than there are cores: many tests wait for sockets. */
const workers = 3

/** The files that take longest, in this order: for their load or their waits rather than their size. */
const long = [
  "rotationLoad",
  "rotationExpiry",
  "cluster",
  "rpcRotation",
  "connectionLife",
  "firstCall",
  "cookbook",
  "membership",
  "failedCalls",
  "localFault",
  "poolModel",
  "identityFederation",
  "auditCrash",
  "rotation",
  "refusals"
]

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

/** For all runs alike. */
const project = {
  name: "packages",
  include: ["packages/*/test/**/*.test.ts"],
  testTimeout: 120_000,
  hookTimeout: 120_000,
  isolate: false
}

const modules = {
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: ["@agentweave/source"] } }
}

const config = defineConfig({
  ...modules,
  test: {
    pool: "forks",
    isolate: false,
    minWorkers: workers,
    maxWorkers: workers,
    // Most of what tests make is garbage at once: a young generation of this size is collected a quarter as often.
    poolOptions: { forks: { execArgv: ["--max-semi-space-size=64"] } },
    sequence: { sequencer: LongestFirst },
    projects: [{ extends: true, test: project }]
  }
})

const isConfig = process.argv.some((argument) => /^(?:-c|--config)(?:=|$)/.test(argument))

// `npm test` names this file as vitest's configuration. A bare `npx vitest` takes it as a list of projects, and has the defaults of
// vitest for the number of processes and the order of the files.
export default isConfig ? config : [{ ...modules, test: project }]
