// `node .ci/matrix.mjs [VERSION ...]`: the tests on every Node that is supported. All of them and `npm start` on the Node that
// runs this, then `npm start` and the tests that depend on Node on each version: the newest of each line, and those that are known to
// be special. Their binaries come from npm, into a folder of their own outside the project.
// A file in which a test fails is run once more by itself. A test that passes then counts as passed and is named as unstable; the other
// failures are named with their messages. Ends with the last runner's summary, these names, and `N passed, N failed`, the sum of all
// runs; each `npm start` counts as a test.
import { spawn, spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, dirname, join, relative } from "node:path"

const asked = process.argv.slice(2)
// 24.21.0: its TLS servers drop the client's chain before a listener can read it.
const versions = asked.length > 0 ? asked : ["22", "24", "24.21.0", "26"]

/**
 * Tests that depend on the Node they run on: those with sockets, files and TLS, and those with Node's cryptography and its URLs. The
 * examples are programs of the same calls in processes of their own, which take long to start: `npm start` is theirs. Long tests of
 * what is the same on every Node are left out: the memory of failed calls, random histories of the audit file.
 */
const selection = [
  "packages/transport-node/",
  "packages/spiffe/",
  "packages/transport/test/directory",
  "/test/integration/",
  "--exclude=packages/examples/**",
  "--exclude=**/failedCalls.test.ts",
  "--exclude=**/auditHistories.test.ts"
]

/** A version that differs from the newest of its line in TLS alone. */
const selections = {
  "24.21.0": [
    "packages/transport-node/test/integration/",
    "packages/testkit/test/integration/",
    "--exclude=**/audit*.test.ts",
    "--exclude=**/rpc*.test.ts"
  ]
}

const folder = mkdtempSync(join(tmpdir(), "node-matrix-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))

const sum = { passed: 0, failed: 0 }
const failures = []
const unstable = []

const withNode = (binary) => ({ ...process.env, PATH: `${dirname(binary)}${delimiter}${process.env.PATH}` })

const npm = (args, binary) => spawnSync("npm", args, { stdio: "inherit", env: withNode(binary) }).status === 0

/** The binary of a version. Without it nothing is known of that version, so the run has failed. */
const install = (release) => {
  const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`
  const prefix = join(folder, release)
  const flags = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
  const done = npm(["install", "--prefix", prefix, ...flags, `${name}@${release}`], process.execPath)
  const binary = join(prefix, "node_modules", name, "bin", process.platform === "win32" ? "node.exe" : "node")
  if (done && existsSync(binary)) return binary
  console.error(`\nNODE ${release} WAS NOT TESTED: npm has given no ${name}@${release}`)
  sum.failed++
  failures.push(`Node ${release} was not tested`)
  return undefined
}

const version = (binary) => spawnSync(binary, ["--version"], { encoding: "utf8" }).stdout.trim()

const heading = (binary, what) => console.log(`\n=== Node ${version(binary)}: ${what}`)

/** `npm start` on each of some versions, side by side: it waits more than it works. */
const start = async (binaries) => {
  const runs = binaries.map(
    (binary) =>
      new Promise((resolve) => {
        const child = spawn("npm", ["start"], { env: withNode(binary), stdio: ["ignore", "pipe", "pipe"] })
        const output = []
        for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => output.push(bytes))
        child.on("error", (error) => resolve({ binary, output: [Buffer.from(`${error}\n`)], done: false }))
        child.on("close", (code) => resolve({ binary, output, done: code === 0 }))
      })
  )
  for (const { binary, done, output } of await Promise.all(runs)) {
    heading(binary, "npm start")
    process.stdout.write(Buffer.concat(output))
    if (done) sum.passed++
    else {
      sum.failed++
      failures.push(`Node ${version(binary)}: npm start`)
    }
  }
}

/** One run of the runner: its exit, and what its report says. A run that made no report has neither tests nor failures. */
const run = (binary, filters) => {
  heading(binary, `npm test ${filters.join(" ")}`)
  const report = join(folder, "report.json")
  rmSync(report, { force: true })
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`]
  const done = npm(["test", "--", ...filters, ...reporters], binary)
  const result = existsSync(report) ? JSON.parse(readFileSync(report, "utf8")) : undefined
  const files = result?.testResults ?? []
  const failed = files.flatMap((file) =>
    file.assertionResults
      .filter((test) => test.status === "failed")
      .map((test) => ({
        file: relative(process.cwd(), file.name),
        name: test.fullName,
        message: (test.failureMessages[0] ?? "").split("\n").slice(0, 3).join("\n  ")
      }))
  )
  const hasFailed = (file) => file.assertionResults.some((test) => test.status === "failed")
  const unloaded = files.filter((file) => file.status === "failed" && !hasFailed(file)).length
  // A run can fail without a test that does: a file that cannot be loaded, an error between tests.
  const other = Math.max(unloaded, done || failed.length > 0 ? 0 : 1)
  return { failed, other, passed: result?.numPassedTests ?? 0 }
}

const test = (binary, filters) => {
  const first = run(binary, filters)
  sum.passed += first.passed
  sum.failed += first.other
  if (first.other > 0)
    failures.push(`Node ${version(binary)}: a file that cannot be loaded, or an error outside of tests`)
  if (first.failed.length === 0) return
  const again = run(binary, [...new Set(first.failed.map(({ file }) => file))])
  for (const failure of first.failed) {
    const still = again.failed.some(({ file, name }) => file === failure.file && name === failure.name)
    const passedAlone = again.other === 0 && !still
    if (passedAlone) sum.passed++
    else sum.failed++
    const list = passedAlone ? unstable : failures
    list.push(`Node ${version(binary)}: ${failure.file}: ${failure.name}\n  ${failure.message}`)
  }
}

const installed = versions.flatMap((release) => {
  const binary = install(release)
  return binary === undefined ? [] : [{ binary, filters: selections[release] ?? selection }]
})
const own = asked.length > 0 ? [] : [process.execPath]
await start([...own, ...installed.map(({ binary }) => binary)])
for (const binary of own) test(binary, [])
for (const { binary, filters } of installed) test(binary, filters)
if (unstable.length > 0)
  console.log(`\nUnstable: failed in the whole run, passed by itself\n- ${unstable.join("\n- ")}`)
if (failures.length > 0) console.log(`\nFailed\n- ${failures.join("\n- ")}`)
console.log(`${sum.passed} passed, ${sum.failed} failed`)
process.exitCode = sum.failed === 0 ? 0 : 1
