// Runs inside a page of the site, so it uses nothing from outside of its function.

/** What is wrong with the page: its headings, its names, and the contrast of its text (WCAG 2.2, 1.4.3, 1.3.1). */
export const auditPage = () => {
  const problems = []
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true })

  /** Red, green and blue of 0 to 255, and the opacity, of any colour that CSS can say. */
  const colourOf = (text) => {
    canvas.clearRect(0, 0, 1, 1)
    canvas.fillStyle = text
    canvas.fillRect(0, 0, 1, 1)
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data
    return { rgb: [r, g, b], alpha: a / 255 }
  }

  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => {
      const part = value / 255
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
    })
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }

  const contrast = (a, b) => {
    const [light, dark] = [luminance(a), luminance(b)].toSorted((x, y) => y - x)
    return (light + 0.05) / (dark + 0.05)
  }

  const over = (top, below) => top.rgb.map((value, i) => value * top.alpha + below[i] * (1 - top.alpha))

  /** The colour that text stands on: backgrounds of the elements around it, one over the other. */
  const backgroundOf = (element) => {
    const layers = []
    for (let at = element; at !== null; at = at.parentElement)
      layers.push(colourOf(getComputedStyle(at).backgroundColor))
    return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255])
  }

  const seen = new Set()
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
    const element = node.parentElement
    const text = node.textContent.trim()
    if (element === null || text === "" || !element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }))
      continue
    const style = getComputedStyle(element)
    // Text that is painted by its background has no colour of its own; what is cut away is for screen readers.
    if (style.webkitTextFillColor === "rgba(0, 0, 0, 0)" || element.closest(".visually-hidden, .VPSkipLink") !== null)
      continue
    const size = Number.parseFloat(style.fontSize)
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700)
    const background = backgroundOf(element)
    const ratio = contrast(over(colourOf(style.color), background), background)
    const key = `${style.color} on ${background.map(Math.round)}`
    if (ratio < (isLarge ? 3 : 4.5) && !seen.has(key)) {
      seen.add(key)
      problems.push(
        `contrast ${ratio.toFixed(2)} of "${text.slice(0, 30)}" in ${element.className || element.tagName} (${key})`
      )
    }
  }

  const headings = document.querySelectorAll("h1").length
  if (headings !== 1) problems.push(`expected one h1, got ${headings}`)
  for (const image of document.querySelectorAll("img:not([alt])")) problems.push(`no alternative text: ${image.src}`)
  for (const button of document.querySelectorAll("button, a[href]")) {
    const name = button.getAttribute("aria-label") ?? button.textContent.trim()
    if (
      name === "" &&
      button.getAttribute("aria-labelledby") === null &&
      button.title === "" &&
      button.querySelector("img[alt]") === null &&
      button.checkVisibility()
    ) {
      problems.push(`no name: ${button.outerHTML.slice(0, 80)}`)
    }
  }
  return problems
}
