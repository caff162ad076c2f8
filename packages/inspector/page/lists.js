// @ts-check
/** Refusals with their explanation, the last events and the last requests. */
import { chip, count, duration, identifier, section, table, time } from "./format.js"
import { h } from "./render.js"

/** @typedef {typeof import("../src/Snapshot.js").Snapshot.Encoded} Snapshot */
/** @typedef {Snapshot["refusals"][number]["event"]} RefusalEvent */

/** @param {RefusalEvent} event */
const summary = (event) => {
  switch (event._tag) {
    case "ConnectionRefused":
      return [
        chip(`${event.error} ${event.reason}`, "bad"),
        h("span", {}, event.side === "Client" ? "we called " : "called from ", identifier(event.address)),
        h("span", {}, "expected ", identifier(event.expectedId)),
        event.actualId === null ? null : h("span", {}, "got ", identifier(event.actualId))
      ]
    case "ConnectionsRefused":
      return [chip(`${event.reason}, ${count(event.count)} times`, "bad")]
  }
}

/** @param {Snapshot} snapshot */
export const refusals = ({ refusals, totalRefused }) =>
  section(
    "Refused connections",
    "",
    h(
      "p",
      { class: "muted" },
      totalRefused === 0 ? "None since the start." : `${count(totalRefused)} since the start.`
    ),
    refusals.length === 0
      ? null
      : h(
          "div",
          { class: "scroll", role: "region", tabindex: "0", "aria-label": "The last refused connections" },
          h(
            "ul",
            { class: "list" },
            ...refusals.map(({ event, hint }) =>
              h(
                "li",
                {},
                h("div", { class: "row" }, time(event.time), ...summary(event)),
                h("p", {}, event.description),
                hint === null ? null : h("p", { class: "muted" }, hint)
              )
            )
          )
        )
  )

/** @param {object} event */
const fields = (event) =>
  Object.entries(event)
    .filter(([name]) => name !== "_tag" && name !== "time")
    .map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : String(value)}`)
    .join(", ")

/** @param {Snapshot} snapshot */
export const events = ({ events }) =>
  section(
    "Last audit events",
    "",
    table(
      "The last audit events",
      ["time", "event", "fields"],
      events.map((event) =>
        h(
          "tr",
          {},
          h("td", { class: "time" }, time(event.time)),
          h("td", {}, event._tag),
          h("td", { class: "text muted" }, fields(event))
        )
      )
    )
  )

/** @param {Snapshot["requests"][number]} request */
const outcome = ({ error, status }) => {
  if (error !== undefined) return chip(error, "bad")
  if (status === undefined) return chip("no response", "bad")
  return chip(`${status}`, status >= 500 ? "bad" : status >= 400 ? "warn" : "good")
}

/** @param {Snapshot} snapshot */
export const requests = ({ requests }) =>
  section(
    "Last requests",
    "",
    table(
      "The last requests",
      ["time", "outcome", "took", "attempt", "request", "peer"],
      requests.map((request) =>
        h(
          "tr",
          {},
          h("td", { class: "time" }, time(request.time)),
          h("td", {}, outcome(request)),
          h("td", { class: "number" }, duration(request.durationMillis)),
          h("td", { class: "number" }, count(request.attempt)),
          h(
            "td",
            { class: "text" },
            `${request.side === "Client" ? "to" : "from"} peer: ${request.method} ${request.path}`
          ),
          h("td", { class: "text" }, identifier(request.peerId))
        )
      )
    )
  )
