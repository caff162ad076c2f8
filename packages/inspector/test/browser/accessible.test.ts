import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Browser } from "playwright-core"
import { axeProblems, keyboardProblems, motionProblems, reflowProblems } from "./accessibility.mjs"
import { launch, openPage } from "./chromium.js"
import { inspected } from "./lively.js"

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")
const browser = await launch()

const views = {
  "a desk, light": { viewport: { width: 1440, height: 900 }, colorScheme: "light" },
  "a phone, dark": { viewport: { width: 390, height: 844 }, colorScheme: "dark" },
  "320 pixels, as a desk at a zoom of 400 %": {
    viewport: { width: 320, height: 256 },
    colorScheme: "light",
    reducedMotion: "reduce"
  }
} as const

const inBrowser = (browser: Browser) => {
  afterAll(() => browser.close())

  for (const [name, view] of Object.entries(views)) {
    it.scopedLive(`can be used by everybody (WCAG 2.2 AA) on ${name}`, () =>
      Effect.gen(function* () {
        const { url } = yield* inspected
        // The policy of the page forbids what axe-core does to it.
        const { page } = yield* Effect.promise(() => openPage(browser, { ...view, bypassCSP: true }))
        const found = yield* Effect.promise(async () => {
          await page.goto(url)
          await page.getByText("Live", { exact: true }).waitFor()
          await page.getByRole("button", { name: "Pause" }).click()
          await page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
          await page.evaluate("document.activeElement.blur()")
          return {
            axe: await axeProblems(page, axeSource),
            reflow: await reflowProblems(page),
            motion: await motionProblems(page),
            keyboard: await keyboardProblems(page)
          }
        })
        assert.deepStrictEqual(found, { axe: [], reflow: [], motion: [], keyboard: [] })
        yield* Effect.promise(() => page.close())
      })
    )
  }
}

describe("the page for everybody", () => {
  if (typeof browser === "string") it(`is left out: ${browser}`, () => {})
  else inBrowser(browser)
})
