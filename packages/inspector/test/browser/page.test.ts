import { Activity, Inspector, type Snapshot } from "@agentweave/inspector"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { CircuitBreakerRegistry } from "@agentweave/transport"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Logger, LogLevel, Option } from "effect"
import type { Browser } from "playwright-core"
import { api, billing, ended, established, refused, started } from "../events.js"
import { processOf } from "../integration/world.js"
import { launch, lowContrast, openPage } from "./chromium.js"

const browser = await launch()

const markup = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

/** A process with some life behind it, an attacker's texts among it. */
const lively = Effect.gen(function* () {
  const { unsafeRecord } = yield* Activity.Activity
  const now = yield* Clock.currentTimeMillis
  for (const [n, peerId] of [api, billing].entries()) {
    const one = { connectionId: `c${n}`, peerId, side: n === 0 ? "Client" : "Server" } as const
    unsafeRecord(established({ ...one, time: now - 200_000 }))
    for (let past = 200; past > 0; past--) {
      const request = { ...one, requestId: `r${n}-${past}`, time: now - past * 1_000 }
      unsafeRecord(started(request))
      unsafeRecord(ended({ ...request, durationMillis: 5 + ((past * 7) % 60), status: past % 23 === 0 ? 503 : 200 }))
    }
  }
  unsafeRecord(ended({ time: now, path: `/${markup}`, error: "TimeoutError" }))
  unsafeRecord(refused({ time: now - 5_000, description: `expected a bundle, got ${markup}`, actualId: markup }))
  unsafeRecord(refused({ time: now - 2_000, reason: "UnexpectedPeer", side: "Server" }))
  const breaker = yield* Effect.flatMap(CircuitBreakerRegistry.CircuitBreakerRegistry, ({ get }) => get(billing))
  yield* Effect.ignore(breaker.protect(Effect.fail("down")))
})

const inspected = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const process = processOf(IdentityProvider.layerStatic(yield* authority.context({ path: "/web" })))
  const services = yield* Layer.build(
    Layer.provideMerge(Inspector.layer({ port: 0, reset: true, interval: "100 millis" }), process)
  )
  yield* Effect.provide(lively, services)
  const { snapshot, url } = yield* Effect.provide(Inspector.Inspector, services)
  const { unsafeRecord } = yield* Effect.provide(Activity.Activity, services)
  return { url: Option.getOrElse(url, () => ""), snapshot, unsafeRecord }
}).pipe(Logger.withMinimumLogLevel(LogLevel.None))

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
