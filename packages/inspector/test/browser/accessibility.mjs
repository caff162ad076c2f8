// Holds a page in a browser to WCAG 2.2, level AA: what axe-core finds, and what only shows when the page is used by the
// keyboard. For the walk of the site and for the browser test of the inspector's page.

/** The tags of axe-core for WCAG 2.2 A and AA, which include those of 2.0 and 2.1. */
const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]

/** Rules of axe-core that no level of WCAG asks for, and that we keep: the parts of a page are landmarks. */
const landmarks = ["region", "landmark-one-main", "landmark-unique", "landmark-no-duplicate-banner", "heading-order"]

/** More elements than a page has that take the focus. */
const maxPresses = 1_000

/** What axe-core finds, each as a line. `axeSource` is its script. */
export const axeProblems = async (page, axeSource) => {
  await page.evaluate(axeSource)
  const violations = await page.evaluate(
    async ({ landmarks, tags }) => {
      const rules = Object.fromEntries([...landmarks, "target-size"].map((id) => [id, { enabled: true }]))
      const { violations } = await globalThis.axe.run(document, {
        runOnly: { type: "tag", values: [...tags, "best-practice"] },
        rules,
        resultTypes: ["violations"]
      })
      return violations
        .filter(({ id, tags: of }) => landmarks.includes(id) || of.some((tag) => tags.includes(tag)))
        .map(({ help, id, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`)
    },
    { landmarks, tags }
  )
  return violations
}

/** Runs in the page, so it uses nothing from outside of its function: what has the focus; `undefined` beyond the last element. */
const focused = () => {
  const element = document.activeElement
  if (element === null || element === document.body || element === document.documentElement) return undefined
  // Its part of the window: a table may be taller than that.
  const box = element.getBoundingClientRect()
  const [left, right] = [Math.max(box.left, 0), Math.min(box.right, innerWidth)]
  const [top, bottom] = [Math.max(box.top, 0), Math.min(box.bottom, innerHeight)]
  const inset = (size) => Math.min(4, size / 2)
  const points =
    left >= right || top >= bottom
      ? []
      : [
          [(left + right) / 2, (top + bottom) / 2],
          [left + inset(right - left), top + inset(bottom - top)],
          [right - inset(right - left), bottom - inset(bottom - top)]
        ]
  const isUncovered = points.some(([x, y]) => {
    const there = document.elementFromPoint(x, y)
    return there !== null && (element.contains(there) || there.contains(element))
  })
  const { boxShadow, outlineStyle, outlineWidth } = getComputedStyle(element)
  const hasOutline = outlineStyle !== "none" && Number.parseFloat(outlineWidth) > 0
  return {
    name: `${element.localName} "${(element.getAttribute("aria-label") ?? element.textContent ?? "").trim().slice(0, 40)}"`,
    at: Array.from(document.querySelectorAll("*")).indexOf(element),
    isUncovered,
    isMarked: hasOutline || boxShadow !== "none"
  }
}

/**
 * Goes through the page with Tab, from its top to its end. Each element that takes the focus comes behind the one before
 * (WCAG 2.4.3), shows that it has it (2.4.7), and is not covered by others (2.4.11); the focus can leave each (2.1.2).
 */
export const keyboardProblems = async (page) => {
  const problems = []
  let before = -1
  for (let press = 0; press < maxPresses; press++) {
    await page.keyboard.press("Tab")
    const found = await page.evaluate(focused)
    if (found === undefined) return press === 0 ? ["expected something that takes the focus"] : problems
    if (found.at === before) return [...problems, `the focus cannot leave ${found.name}`]
    if (found.at < before) problems.push(`${found.name} takes the focus behind what follows it`)
    if (!found.isMarked) problems.push(`${found.name} does not show that it has the focus`)
    if (!found.isUncovered) problems.push(`${found.name} has the focus and is covered`)
    before = found.at
  }
  return [...problems, `expected at most ${maxPresses} elements that take the focus`]
}

/** Where the reader asks for less motion: what moves nevertheless. */
export const motionProblems = (page) =>
  page.evaluate(() => {
    const seconds = (text) => Math.max(...text.split(",").map((part) => Number.parseFloat(part)))
    const moving = Array.from(document.querySelectorAll("*")).filter((element) => {
      const { animationDuration, animationName, scrollBehavior, transitionDuration } = getComputedStyle(element)
      const isAnimated = animationName !== "none" && seconds(animationDuration) > 0.01
      return isAnimated || seconds(transitionDuration) > 0.01 || scrollBehavior === "smooth"
    })
    return Array.from(new Set(moving.map((one) => `${one.localName}.${one.className} moves`)))
  })

/** Whether a reader must scroll in two directions: at 320 CSS pixels nothing may be wider (WCAG 1.4.10). */
export const reflowProblems = (page) =>
  page.evaluate(() => {
    const { clientWidth, scrollWidth } = document.documentElement
    return scrollWidth > clientWidth ? [`expected nothing wider than ${clientWidth}, got ${scrollWidth}`] : []
  })
