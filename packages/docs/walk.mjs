// `npm run docs:walk`: opens every page of the built site in Chromium, as wide as a desk, a phone, and 320 pixels, light and dark, and
// holds each to what is promised of it, and to WCAG 2.2 AA. Chromium is not installed by this: its path is CHROMIUM, or /usr/bin/chromium. Without one
// the walk is left out, and says so.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { createServer } from "node:http"
import { createRequire } from "node:module"
import { dirname, extname, join, normalize, sep } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import {
  axeProblems,
  keyboardProblems,
  motionProblems,
  reflowProblems
} from "../inspector/test/browser/accessibility.mjs"
import { auditPage } from "./walkPage.mjs"

const here = dirname(fileURLToPath(import.meta.url))
const site = join(here, "site")
const dist = join(site, ".vitepress", "dist")
const chromiumPath = process.env["CHROMIUM"] ?? "/usr/bin/chromium"

/** Most bytes that a page may load, with its scripts and styles, compressed as servers do it. */
const maxPageBytes = 300 * 1024

const types = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml"
}

if (!existsSync(dist)) {
  console.error("expected a built site: run npm run docs first")
  process.exit(1)
}
if (!existsSync(chromiumPath)) {
  console.log(`THE WALK IS LEFT OUT: there is no Chromium at ${chromiumPath}; CHROMIUM can name another one`)
  process.exit(0)
}

/** The site on a port of this machine; what is not there is a 404. */
const server = createServer((request, response) => {
  const path = decodeURIComponent(new URL(request.url, "http://site").pathname)
  const file = normalize(join(dist, path.endsWith("/") ? `${path}index.html` : path))
  if (!file.startsWith(dist + sep) || !existsSync(file) || !statSync(file).isFile()) {
    response.writeHead(404, { "content-type": "text/plain" }).end("not found")
    return
  }
  response
    .writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" })
    .end(readFileSync(file))
})
await new Promise((done) => server.listen(0, "127.0.0.1", done))
const origin = `http://127.0.0.1:${server.address().port}`

/** Every page of the guide, and of the reference its first page and one module. */
const pages = readdirSync(dist, { recursive: true, encoding: "utf8" })
  .map((path) => path.split(sep).join("/"))
  .filter((path) => path.endsWith(".html") && path !== "404.html" && !path.startsWith("api/"))
const reference = ["api/index.html", "api/modules/_agentweave_transport.AuditEvent.html"]

const tools = createRequire(join(site, "package.json"))
const { chromium } = tools("playwright-core")
const axeSource = readFileSync(tools.resolve("axe-core/axe.min.js"), "utf8")
const browser = await chromium.launch({ executablePath: chromiumPath, args: ["--no-sandbox", "--disable-gpu"] })
const problems = []

/** Pages that are gone through with the keyboard in every view: one of each layout. On a desk all are. */
const keyboardPages = new Set(["index.html", "guide/first-call.html", "benchmarks.html"])

const views = [
  { name: "desk, light", isDesk: true, viewport: { width: 1280, height: 800 }, colorScheme: "light" },
  { name: "phone, dark", viewport: { width: 390, height: 844 }, colorScheme: "dark" },
  // What a desk of 1280 shows at a zoom of 400 %.
  { name: "320 pixels", viewport: { width: 320, height: 256 }, colorScheme: "light", reducedMotion: "reduce" }
]

/** Bytes of the page with what it needs. Later pages that it fetches ahead are not part of it. */
const weigh = async (page, responses) => {
  const prefetched = new Set(await page.$$eval('link[rel="prefetch"]', (links) => links.map(({ href }) => href)))
  const needed = responses.filter((response) => !prefetched.has(response.url()))
  const bodies = await Promise.all(needed.map((response) => response.body().catch(() => "")))
  return bodies.reduce((sum, body) => sum + gzipSync(body).length, 0)
}

const walk = async (path, view) => {
  const { isDesk: _, name, ...options } = view
  const context = await browser.newContext(options)
  const page = await context.newPage()
  const say = (problem) => problems.push(`${path} (${name}): ${problem}`)
  const responses = []
  page.on("console", (message) => message.type() === "error" && say(`console: ${message.text()}`))
  page.on("pageerror", (error) => say(`error: ${error.message}`))
  page.on("response", (response) => {
    responses.push(response)
    if (response.status() >= 400) say(`${response.status()} for ${response.url()}`)
  })
  page.on(
    "request",
    (request) => !request.url().startsWith(origin) && !request.url().startsWith("data:") && say(`asks ${request.url()}`)
  )
  await page.goto(`${origin}/${path}`, { waitUntil: "networkidle" })
  if (!path.startsWith("api/")) {
    const bytes = await weigh(page, responses)
    if (bytes > maxPageBytes) say(`expected at most ${maxPageBytes} bytes, got ${bytes}`)
    for (const problem of await page.evaluate(auditPage)) say(problem)
    for (const problem of await axeProblems(page, axeSource)) say(problem)
    for (const problem of await reflowProblems(page)) say(problem)
    if (view.reducedMotion !== undefined) for (const problem of await motionProblems(page)) say(problem)
    await page.keyboard.press("Tab")
    const focused = await page.evaluate(() => document.activeElement?.textContent?.trim())
    if (!/skip to content/i.test(focused ?? "")) say(`expected the first Tab at "Skip to content", got ${focused}`)
    if (view.isDesk || keyboardPages.has(path)) for (const problem of await keyboardProblems(page)) say(problem)
  }
  const links = await page.$$eval("a[href]", (all) => all.map(({ href }) => href))
  await context.close()
  return links
}

const linked = new Set()
for (const path of [...pages, ...reference]) {
  for (const view of views) {
    for (const link of await walk(path, view)) {
      if (link.startsWith(origin) && !path.startsWith("api/")) linked.add(link.replace(/#.*/, ""))
    }
  }
}
for (const link of linked) {
  const { status } = await fetch(link)
  if (status !== 200) problems.push(`a link to ${link}: ${status}`)
}
await browser.close()
server.close()
if (problems.length > 0) {
  console.error(Array.from(new Set(problems)).join("\n"))
  console.error(`\nwalk failed: ${problems.length} problems`)
  process.exit(1)
}
console.log(
  `ok ${pages.length} pages and ${reference.length} of the reference, ${views.map(({ name }) => name).join("; ")}; ${linked.size} links`
)
