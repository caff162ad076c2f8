import type { Snapshot } from "@agentweave/inspector"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Browser } from "playwright-core"
import { billing, refused } from "../events.js"
import { launch, lowContrast, openPage } from "./chromium.js"
import { inspected, markup } from "./lively.js"

const browser = await launch()

const phone = { width: 390, height: 844 }
const desk = { width: 1440, height: 900 }
const screenshots = process.env["INSPECTOR_SCREENSHOTS"]

const promise = <A>(evaluate: () => Promise<A>) => Effect.promise(evaluate)

const inBrowser = (browser: Browser) => {
  afterAll(() => browser.close())

  for (const colorScheme of ["light", "dark"] as const) {
    for (const [name, viewport] of Object.entries({ phone, desk })) {
      it.scopedLive(`shows the process on a ${name}'s width, ${colorScheme}, without a complaint of the browser`, () =>
        Effect.gen(function* () {
          const { url } = yield* inspected
          const { complaints, page } = yield* promise(() => openPage(browser, { viewport, colorScheme }))
          yield* promise(() => page.goto(url))
          yield* promise(() => page.getByText("Live", { exact: true }).waitFor())
          for (const heading of ["Identity", "Peers", "Refused connections", "Last audit events"]) {
            yield* promise(() => page.getByRole("heading", { name: heading, exact: true }).waitFor())
          }
          yield* promise(() => page.getByText("spiffe://example.org/web", { exact: true }).first().waitFor())
          assert.isAtMost(
            yield* promise(() => page.evaluate<number>("document.documentElement.scrollWidth")),
            viewport.width,
            "nothing is wider than the screen"
          )
          assert.deepStrictEqual(yield* promise(() => page.evaluate<Array<string>>(lowContrast)), [])
          if (screenshots !== undefined) {
            yield* promise(() => page.screenshot({ path: `${screenshots}/${name}-${colorScheme}.png`, fullPage: true }))
          }
          assert.deepStrictEqual(complaints, [])
          yield* promise(() => page.close())
        })
      )
    }
  }

  it.scopedLive("what an attacker has put into a path, an ID or a description is text", () =>
    Effect.gen(function* () {
      const { url } = yield* inspected
      const { complaints, page } = yield* promise(() => openPage(browser, { viewport: desk }))
      yield* promise(() => page.goto(url))
      yield* promise(() => page.getByText(markup).first().waitFor())
      assert.isAtLeast(yield* promise(() => page.getByText(markup).count()), 3)
      assert.strictEqual(yield* promise(() => page.locator("main img, main script").count()), 0)
      assert.notInclude(yield* promise(() => page.title()), "owned")
      assert.deepStrictEqual(complaints, [])
      yield* promise(() => page.close())
    })
  )

  it.scopedLive("can be used with the keyboard alone, and what has the focus keeps it while data comes in", () =>
    Effect.gen(function* () {
      const { unsafeRecord, url } = yield* inspected
      const { page } = yield* promise(() => openPage(browser, { viewport: desk }))
      yield* promise(() => page.goto(url))
      const focused = promise(() =>
        page.evaluate<string>("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
      )
      yield* promise(() => page.getByText("Live", { exact: true }).waitFor())
      const seen: Array<string> = []
      for (let presses = 0; presses < 12; presses++) {
        yield* promise(() => page.keyboard.press("Tab"))
        seen.push(yield* focused)
      }
      assert.deepStrictEqual(seen.slice(0, 3), ["Skip to the state", "Pause", "Rotations and problems of the identity"])
      assert.includeMembers(seen, [`Reset the circuit breaker of ${billing}`, "The last refused connections"])
      yield* promise(() => page.getByText("Newest 1 of 1 connections").first().focus())
      yield* promise(() => page.keyboard.press("Enter"))
      unsafeRecord(refused({ description: "the one that comes later" }))
      yield* promise(() => page.getByText("the one that comes later").first().waitFor())
      assert.strictEqual(yield* focused, "Newest 1 of 1 connections")
      assert.strictEqual(yield* promise(() => page.locator("details[open]").count()), 1)
      yield* promise(() => page.close())
    })
  )

  it.scopedLive("Pause keeps what is shown, and goes on from the present when it is pressed again", () =>
    Effect.gen(function* () {
      const { unsafeRecord, url } = yield* inspected
      const { page } = yield* promise(() => openPage(browser, { viewport: desk }))
      yield* promise(() => page.goto(url))
      yield* promise(() => page.getByText("Live", { exact: true }).waitFor())
      const pause = page.getByRole("button", { name: "Pause" })
      yield* promise(() => pause.click())
      yield* promise(() => page.getByText("Paused", { exact: true }).waitFor())
      unsafeRecord(refused({ description: "while it is paused" }))
      const shown = yield* promise(() => page.locator("main").textContent())
      // A second page shows the event, so it would have come here too.
      const { page: other } = yield* promise(() => openPage(browser, { viewport: desk }))
      yield* promise(() => other.goto(url))
      yield* promise(() => other.getByText("while it is paused").first().waitFor())
      assert.strictEqual(yield* promise(() => page.locator("main").textContent()), shown)
      yield* promise(() => pause.click())
      yield* promise(() => page.getByText("while it is paused").first().waitFor())
      yield* promise(() => Promise.all([page.close(), other.close()]))
    })
  )

  it.scopedLive("the reset of a breaker is a button of its peer", () =>
    Effect.gen(function* () {
      const { snapshot, url } = yield* inspected
      const { complaints, page } = yield* promise(() => openPage(browser, { viewport: desk }))
      yield* promise(() => page.goto(url))
      const button = page.getByRole("button", { name: `Reset the circuit breaker of ${billing}` })
      yield* promise(() => button.click())
      yield* promise(() => button.waitFor({ state: "detached" }))
      const stateOf = ({ peers }: Snapshot.Snapshot) => peers.find(({ id }) => id === billing)?.breaker?.state
      assert.strictEqual(stateOf(yield* snapshot), "Closed")
      assert.deepStrictEqual(complaints, [])
      yield* promise(() => page.close())
    })
  )
}

describe("the page in a browser", () => {
  if (typeof browser === "string") it(`is left out: ${browser}`, () => {})
  else inBrowser(browser)
})
