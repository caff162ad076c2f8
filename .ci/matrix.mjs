// `node .ci/matrix.mjs [VERSION ...]`: the tests on every Node that is supported. All of them and `npm start` on the Node that
// runs this, then `npm start` and the tests of all packages that use Node's modules on each version: the newest of each line, and
// those that are known to be special. Their binaries come from npm, into a folder of their own outside the project.
// Ends with the last runner's summary and `N passed, N failed`, the sum of all runs; each `npm start` counts as a test.
import { spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, dirname, join } from "node:path"

const asked = process.argv.slice(2)
// 24.21.0: its TLS servers drop the client's chain before a listener can read it.
const versions = asked.length > 0 ? asked : ["22", "24", "24.21.0", "26"]

/** `transport` uses none of Node's modules: what it does is the same on each. */
const portable = ["packages/transport/"]
const selection = readdirSync("packages")
  .map((name) => `packages/${name}/`)
  .filter((folder) => existsSync(`${folder}test`) && !portable.includes(folder))

const folder = mkdtempSync(join(tmpdir(), "node-matrix-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))

const sum = { passed: 0, failed: 0 }

const withNode = (binary) => ({ ...process.env, PATH: `${dirname(binary)}${delimiter}${process.env.PATH}` })

const npm = (args, binary) => spawnSync("npm", args, { stdio: "inherit", env: withNode(binary) }).status === 0

/** The binary of a version. Without it nothing is known of that version, so the run has failed. */
const install = (version) => {
  const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`
  const prefix = join(folder, version)
  const flags = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
  const done = npm(["install", "--prefix", prefix, ...flags, `${name}@${version}`], process.execPath)
  const binary = join(prefix, "node_modules", name, "bin", process.platform === "win32" ? "node.exe" : "node")
  if (done && existsSync(binary)) return binary
  console.error(`\nNODE ${version} WAS NOT TESTED: npm has given no ${name}@${version}`)
  sum.failed++
  return undefined
}

const heading = (binary, what) => {
  const { stdout } = spawnSync(binary, ["--version"], { encoding: "utf8" })
  console.log(`\n=== Node ${stdout.trim()}: ${what}`)
}

const start = (binary) => {
  heading(binary, "npm start")
  if (npm(["start"], binary)) sum.passed++
  else sum.failed++
}

const test = (binary, filters) => {
  heading(binary, `npm test ${filters.join(" ")}`)
  const report = join(folder, "report.json")
  rmSync(report, { force: true })
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`]
  const done = npm(["test", "--", ...filters, ...reporters], binary)
  const result = existsSync(report) ? JSON.parse(readFileSync(report, "utf8")) : undefined
  sum.passed += result?.numPassedTests ?? 0
  // A run can fail without a test that does: a file that cannot be loaded, an error between tests.
  sum.failed += Math.max(result?.numFailedTests ?? 0, done ? 0 : 1)
}

const binaries = versions.map(install).filter((binary) => binary !== undefined)
const own = asked.length > 0 ? [] : [process.execPath]
for (const binary of [...own, ...binaries]) start(binary)
for (const binary of own) test(binary, [])
for (const binary of binaries) test(binary, selection)
console.log(`${sum.passed} passed, ${sum.failed} failed`)
process.exitCode = sum.failed === 0 ? 0 : 1
