/** Debian's Chromium, where it is there and starts. */
import { existsSync } from "node:fs"
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core"

const executablePath = "/usr/bin/chromium"

/** More than ten times what a step takes: it is there for a browser that hangs. */
export const actionTimeout = 100_000

export const launch = async (): Promise<Browser | string> => {
  if (!existsSync(executablePath)) return `there is no ${executablePath}`
  try {
    return await chromium.launch({
      executablePath,
      args: ["--no-sandbox", "--disable-dev-shm-usage"],
      timeout: actionTimeout
    })
  } catch (error) {
    return `${executablePath} does not start: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`
  }
}

/** A page, and what its console said that is no plain information. */
export const openPage = async (
  browser: Browser,
  options: BrowserContextOptions
): Promise<{ readonly page: Page; readonly complaints: ReadonlyArray<string> }> => {
  const page = await browser.newPage(options)
  page.setDefaultTimeout(actionTimeout)
  const complaints: Array<string> = []
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text())
  })
  page.on("pageerror", (error) => complaints.push(error.message))
  return { page, complaints }
}

/**
 * The texts on the page whose contrast is below that of WCAG 2.2 level AA (success criterion 1.4.3), each with its ratio. An
 * expression for the browser.
 */
export const lowContrast = `(() => {
  const channels = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number)
  const luminance = (color) => {
    const [r, g, b] = channels(color).map((value) => {
      const part = value / 255
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
    })
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const isOpaque = (color) => channels(color).length === 3 || channels(color)[3] === 1
  const background = (element) => {
    const color = getComputedStyle(element).backgroundColor
    return isOpaque(color) || element.parentElement === null ? color : background(element.parentElement)
  }
  const found = []
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node = texts.nextNode(); node !== null; node = texts.nextNode()) {
    const element = node.parentElement
    if (node.data.trim() === "" || element.closest("script, style, noscript") !== null) continue
    const [a, b] = [luminance(getComputedStyle(element).color), luminance(background(element))]
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (ratio < 4.5) found.push(node.data.slice(0, 40) + " " + ratio.toFixed(2))
  }
  return found
})()`
