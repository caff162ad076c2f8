// @ts-check
/** Requests, errors and latency over time, as small drawings with their meaning in words. */
import { count, duration, figure } from "./format.js"
import { h } from "./render.js"

/** @typedef {import("../src/Snapshot.js").Traffic} Traffic */

/** @param {ReadonlyArray<number>} values */
const sum = (values) => values.reduce((all, value) => all + value, 0)

/**
 * Requests a second over the last ten seconds that are over; over one slot where it is longer.
 *
 * @param {Traffic} traffic
 */
export const rate = ({ requests, slotMillis }) => {
  const slots = Math.max(1, Math.round(10_000 / slotMillis))
  return sum(requests.slice(-slots - 1, -1)) / ((slots * slotMillis) / 1_000)
}

/** @param {Traffic} traffic */
const errorShare = ({ errors, requests }) => {
  const all = sum(requests)
  return all === 0 ? "–" : `${((100 * sum(errors)) / all).toFixed(1)} %`
}

/** @param {number} perSecond */
const perSecond = (perSecond) => `${perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond))} / s`

/**
 * @param {Traffic} traffic
 * @param {string} kind
 * @param {string} label
 */
export const bars = ({ errors, requests }, kind, label) => {
  const top = Math.max(1, ...requests)
  return h(
    "svg",
    {
      class: `chart ${kind}`,
      viewBox: `0 0 ${requests.length} 100`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label
    },
    ...requests.flatMap((all, at) => {
      const failed = errors[at] ?? 0
      const bar = (/** @type {string} */ name, /** @type {number} */ from, /** @type {number} */ size) =>
        size === 0
          ? null
          : h("rect", {
              class: name,
              x: `${at + 0.1}`,
              width: "0.8",
              y: (100 - (100 * (from + size)) / top).toFixed(1),
              height: ((100 * size) / top).toFixed(1)
            })
      return [bar("requests", failed, all - failed), bar("errors", 0, failed)]
    })
  )
}

/**
 * @param {ReadonlyArray<number | null>} values
 * @param {number} top
 */
const points = (values, top) =>
  values
    .flatMap((value, at) => (value === null ? [] : [`${at + 0.5},${(100 - (96 * value) / top).toFixed(1)}`]))
    .join(" ")

/**
 * @param {Traffic} traffic
 * @param {string} label
 */
const lines = ({ p50, p99 }, label) => {
  const top = Math.max(1, ...p99.map((value) => value ?? 0))
  return h(
    "svg",
    {
      class: "chart",
      viewBox: `0 0 ${p50.length} 100`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label
    },
    h("polyline", { class: "p50", points: points(p50, top) }),
    h("polyline", { class: "p99", points: points(p99, top) })
  )
}

/** @param {Traffic} traffic */
const span = ({ requests, slotMillis }) => duration(requests.length * slotMillis).replace(" 0 s", "")

/**
 * The figures and both charts of one direction.
 *
 * @param {Traffic} traffic
 */
export const traffic = (traffic) => [
  h(
    "dl",
    { class: "facts" },
    figure("rate", perSecond(rate(traffic))),
    figure("failed", errorShare(traffic)),
    figure("median", duration(traffic.p50Millis)),
    figure("99 of 100 within", duration(traffic.p99Millis))
  ),
  h(
    "p",
    { class: "caption muted" },
    `Requests in ${span(traffic)}, failed ones at the bottom in red; most in one step: ${count(Math.max(0, ...traffic.requests))}`
  ),
  bars(traffic, "", `${count(sum(traffic.requests))} requests, of which ${count(sum(traffic.errors))} failed`),
  h(
    "p",
    { class: "caption muted" },
    `Latency: median as a line, 99th percentile dashed; highest: ${duration(Math.max(0, ...traffic.p99.map((value) => value ?? 0)))}`
  ),
  lines(traffic, `median ${duration(traffic.p50Millis)}, 99th percentile ${duration(traffic.p99Millis)}`),
  h(
    "p",
    { class: "caption muted" },
    `${count(traffic.total)} requests since the start, ${count(traffic.totalErrors)} failed`
  )
]

/**
 * @param {Traffic | null} traffic
 * @param {string} name
 */
export const small = (traffic, name) =>
  traffic === null
    ? null
    : h(
        "div",
        { "data-key": name },
        h(
          "p",
          { class: "muted" },
          `${name}: ${perSecond(rate(traffic))}, ${errorShare(traffic)} failed, 99th percentile ${duration(traffic.p99Millis)}`
        ),
        bars(
          traffic,
          "spark",
          `${count(sum(traffic.requests))} requests, of which ${count(sum(traffic.errors))} failed`
        )
      )
