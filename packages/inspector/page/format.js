// @ts-check
/** Numbers, times and states as a person reads them. */
import { h } from "./render.js"

/** @param {number} value */
export const count = (value) => value.toLocaleString("en")

/** @param {number | null} millis */
export const duration = (millis) => {
  if (millis === null) return "–"
  if (millis < 1_000) return `${Math.round(millis)} ms`
  if (millis < 60_000) return `${(millis / 1_000).toFixed(1)} s`
  const minutes = Math.floor(millis / 60_000)
  if (minutes < 60) return `${minutes} min ${Math.floor(millis / 1_000) % 60} s`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`
}

/** @param {number} millis */
export const time = (millis) => {
  const date = new Date(millis)
  return h("time", { datetime: date.toISOString() }, date.toLocaleTimeString("en-GB"))
}

/** @param {number} millis */
export const dateTime = (millis) => {
  const date = new Date(millis)
  return h("time", { datetime: date.toISOString() }, `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`)
}

/**
 * @param {string} text
 * @param {"good" | "warn" | "bad"} kind
 */
export const chip = (text, kind) => h("span", { class: `chip ${kind}` }, text)

/**
 * @param {string} name
 * @param {import("./render.js").Child} value
 * @param {string} [kind]
 */
export const fact = (name, value, kind = "") => h("div", { class: kind }, h("dt", {}, name), h("dd", {}, value))

/**
 * @param {string} name
 * @param {string} value
 */
export const figure = (name, value) => h("div", {}, h("dt", {}, name), h("dd", { class: "figure" }, value))

/** @param {string} id */
export const identifier = (id) => h("span", { class: "id" }, id)

/**
 * A table that can be scrolled with the keyboard.
 *
 * @param {string} name
 * @param {ReadonlyArray<string>} columns
 * @param {ReadonlyArray<import("./render.js").Tree>} rows
 */
export const table = (name, columns, rows) =>
  h(
    "div",
    { class: "scroll", role: "region", tabindex: "0", "aria-label": name },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...columns.map((column) => h("th", { scope: "col" }, column)))),
      h("tbody", {}, ...rows)
    )
  )

/**
 * @param {string} title
 * @param {string} kind
 * @param {ReadonlyArray<import("./render.js").Child>} children
 */
export const section = (title, kind, ...children) =>
  h("section", { class: kind, "aria-label": title, "data-key": title }, h("h2", {}, title), ...children)
