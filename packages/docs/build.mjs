// `npm run docs`: the site, into packages/docs/site/.vitepress/dist. The tools are a project of their own, which is installed when
// the site is built for the first time, so that `npm ci` in the repository does not bring them.
import { spawnSync } from "node:child_process"
import { existsSync, statSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const here = dirname(fileURLToPath(import.meta.url))
const site = join(here, "site")

const run = (command, args, cwd) => {
  const started = performance.now()
  const done = spawnSync(command, args, { cwd, stdio: "inherit" })
  if (done.status !== 0) {
    console.error(`\ndocs failed: ${command} ${args.join(" ")}`)
    process.exit(1)
  }
  console.log(`ok ${args[0]} (${((performance.now() - started) / 1000).toFixed(1)} s)`)
}

const tool = (path) => join(site, "node_modules", path)

/** Installs the tools, where the lock file is newer than what is installed. */
const install = () => {
  const installed = tool(".package-lock.json")
  const isCurrent =
    existsSync(installed) && statSync(installed).mtimeMs >= statSync(join(site, "package-lock.json")).mtimeMs
  if (!isCurrent) run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], site)
}

install()
run(process.execPath, [tool("vitepress/bin/vitepress.js"), "build", "."], site)
run(process.execPath, [tool("typedoc/bin/typedoc"), "--options", join(here, "typedoc.json")], here)
