// `npm run pack:check`: the packages as their users get them. Packs each, installs the tarballs into a fresh project outside the
// repository, compiles the programs of the guide's first call there (module resolution NodeNext and Bundler, with the
// declarations of all libraries checked), and runs them: a development agent, a server, a verified request.
import { spawn, spawnSync } from "node:child_process"
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { published } from "./packages.mjs"

const folder = mkdtempSync(join(tmpdir(), "pack-check-"))
const children = []
process.on("exit", () => {
  for (const child of children) child.kill()
  rmSync(folder, { recursive: true, force: true })
})

const fail = (message) => {
  console.error(`\npack:check failed: ${message}`)
  process.exit(1)
}

const run = (title, command, args, options = {}) => {
  const started = performance.now()
  const done = spawnSync(command, args, { encoding: "utf8", ...options })
  if (done.status !== 0) fail(`${title} (${command} ${args.join(" ")})\n${done.stdout}${done.stderr}`)
  console.log(`ok ${title} (${((performance.now() - started) / 1000).toFixed(1)} s)`)
  return done.stdout
}

/** What a tarball must hold, and must not. */
const checkTarball = ({ files, name }) => {
  const paths = files.map(({ path }) => path)
  for (const path of ["LICENSE", "README.md", "package.json"]) {
    if (!paths.includes(path)) fail(`${name}: expected ${path} in the tarball`)
  }
  const strange = paths.filter((path) => !/^(dist|src|page)\/|^(LICENSE|package\.json|[A-Z_]+\.md)$/.test(path))
  if (strange.length > 0)
    fail(`${name}: expected sources, build and documents in the tarball, got ${strange.join(", ")}`)
}

const pack = () => {
  const args = [
    "pack",
    "--json",
    "--pack-destination",
    folder,
    ...published.flatMap((name) => ["-w", `packages/${name}`])
  ]
  const packed = JSON.parse(run(`${published.length} tarballs`, "npm", args))
  for (const one of packed) checkTarball(one)
  return packed.map(({ filename }) => join(folder, filename))
}

/** The project of a user, with what the guide tells to install. */
const install = (tarballs) => {
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "first-call", private: true, type: "module" }))
  const { devDependencies } = JSON.parse(readFileSync("package.json", "utf8"))
  const others = ["effect", "@effect/platform", "@effect/platform-node"].map(
    (name) => `${name}@${devDependencies[name]}`
  )
  // The declarations of @effect/platform-node-shared name those of ws, which it does not bring.
  const types = [`@types/node@${devDependencies["@types/node"]}`, "@types/ws@8"]
  const flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]
  run("installation", "npm", ["install", ...flags, ...tarballs, ...others, ...types], { cwd: folder })
}

const compile = (module, moduleResolution, emit) => {
  const options = {
    target: "ES2022",
    lib: ["ES2022", "DOM", "ESNext.Disposable"],
    module,
    moduleResolution,
    types: ["node"],
    strict: true,
    skipLibCheck: false,
    ...(emit ? { outDir: "build", rootDir: "." } : { noEmit: true })
  }
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: options, include: ["*.ts"] }))
  run(`types with ${moduleResolution}`, process.execPath, [resolve("node_modules/typescript/bin/tsc"), "-p", folder], {
    cwd: folder
  })
}

/** Starts a program, and waits for a line. */
const started = (args, pattern, env) =>
  new Promise((done) => {
    const child = spawn(process.execPath, args, {
      cwd: folder,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "inherit"]
    })
    children.push(child)
    const lines = []
    createInterface(child.stdout).on("line", (line) => {
      lines.push(line)
      if (pattern.test(line)) done(line)
    })
    child.once("exit", () => fail(`${args.join(" ")} ended\n${lines.join("\n")}`))
  })

const firstCall = async () => {
  const command = join(folder, "node_modules", "@agentweave", "cli", "dist", "main.js")
  const socket = (name) => `unix://${join(folder, `${name}.sock`)}`
  const sockets = ["api", "web"].flatMap((name) => ["--socket", `${name}.sock`, "--workload", `/${name}`])
  await started([command, "dev-agent", "--trust-domain", "example.org", ...sockets], /\/web$/)
  const env = (name) => ({ SPIFFE_ENDPOINT_SOCKET: socket(name) })
  const listens = await started(["build/api.js"], /^listens at/, { PORT: "0", ...env("api") })
  const url = listens.replace("listens at ", "")
  await started(["build/web.js"], /^200 hello spiffe:\/\/example\.org\/web$/, { API_URL: url, ...env("web") })
  console.log("ok first call")
  const probe = [
    "probe",
    new URL(url).host,
    "--expect",
    "spiffe://example.org/api",
    "--endpoint",
    socket("web"),
    "--path",
    "/hello"
  ]
  const said = run("agentweave probe", "npx", ["--no-install", "agentweave", ...probe], { cwd: folder })
  if (!said.includes("GET /hello: 200")) fail(`expected a response, got ${said}`)
}

run("build", "npm", ["run", "--silent", "build"])
install(pack())
mkdirSync(join(folder, "build"))
for (const name of ["api", "web"])
  copyFileSync(`packages/examples/src/first-call/${name}.ts`, join(folder, `${name}.ts`))
compile("Preserve", "Bundler", false)
compile("NodeNext", "NodeNext", true)
await firstCall()
process.exit(0)
