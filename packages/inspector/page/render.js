// @ts-check
/**
 * Draws a tree of plain objects into the document and changes only what differs, so that focus, scroll positions and open
 * details stay while data comes in. All data goes into text nodes and attribute values: nothing is ever read as markup.
 */

/** @typedef {{ tag: string, attributes: Record<string, string>, children: Array<Tree | string> }} Tree */
/** @typedef {Tree | string | null | ReadonlyArray<Tree | string | null>} Child */

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {ReadonlyArray<Child>} children
 * @returns {Tree}
 */
export const h = (tag, attributes = {}, ...children) => {
  /** @type {Array<Tree | string>} */
  const kept = []
  for (const child of children.flat()) if (child !== null) kept.push(child)
  return { tag, attributes, children: kept }
}

const svgTags = new Set(["svg", "rect", "polyline", "title"])

/** @param {Tree} tree */
const create = ({ tag }) =>
  svgTags.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag)

/** @param {Tree} tree */
const keyOf = ({ attributes }) => attributes["data-key"] ?? null

/**
 * @param {Node | null} node
 * @param {Tree} tree
 */
const isFor = (node, tree) =>
  node instanceof Element && node.localName === tree.tag && node.getAttribute("data-key") === keyOf(tree)

/**
 * @param {Element} parent
 * @param {Tree} tree
 * @param {Node | null} at
 * @returns {Element}
 */
const elementFor = (parent, tree, at) => {
  if (at instanceof Element && isFor(at, tree)) return at
  const key = keyOf(tree)
  const known = key === null ? undefined : Array.from(parent.children).find((child) => isFor(child, tree))
  const element = known ?? create(tree)
  parent.insertBefore(element, at)
  return element
}

/**
 * @param {Element} element
 * @param {Record<string, string>} attributes
 */
const setAttributes = (element, attributes) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value)
  }
  for (const { name } of Array.from(element.attributes)) {
    // The reader opens and closes details.
    if (!(name in attributes) && name !== "open") element.removeAttribute(name)
  }
}

/**
 * @param {Element} parent
 * @param {ReadonlyArray<Tree | string>} children
 */
export const draw = (parent, children) => {
  /** @type {Node | null} */
  let at = parent.firstChild
  for (const child of children) {
    if (typeof child === "string") {
      if (at instanceof Text) {
        if (at.data !== child) at.data = child
        at = at.nextSibling
      } else parent.insertBefore(document.createTextNode(child), at)
      continue
    }
    const element = elementFor(parent, child, at)
    setAttributes(element, child.attributes)
    draw(element, child.children)
    at = element.nextSibling
  }
  while (at !== null) {
    const next = at.nextSibling
    parent.removeChild(at)
    at = next
  }
}
