// @ts-check
/** Who the process is, and its pool. */
import { chip, count, dateTime, duration, fact, figure, identifier, section, table, time } from "./format.js"
import { h } from "./render.js"

/** @typedef {typeof import("../src/Snapshot.js").Snapshot.Encoded} Snapshot */

/** @type {Record<Snapshot["identity"]["freshness"], "good" | "warn" | "bad">} */
const kinds = { Fresh: "good", Stale: "warn", Expired: "bad", None: "bad" }

/** @param {number} number */
const authorities = (number) => `${count(number)} ${number === 1 ? "authority" : "authorities"}`

/** @param {Snapshot["identity"]["history"][number]} event */
const became = (event) => {
  switch (event._tag) {
    case "SvidRotated":
      return `SVID ${event.serialNumber} of ${event.ownId} in use`
    case "BundleRotated":
      return event.generation === undefined
        ? `bundle of ${event.trustDomain} removed`
        : `bundle of ${event.trustDomain} in use, ${authorities(event.authorities)}`
    case "IdentityProblem":
      return `${event.problem}: ${event.description}`
  }
}

/** @param {Snapshot} snapshot */
export const identity = ({ identity: { bundles, freshness, history, problem, svid }, startedAt, time: now }) =>
  section(
    "Identity",
    "",
    h(
      "dl",
      { class: "facts" },
      fact("state", chip(freshness, kinds[freshness])),
      figure("time left", svid === null ? "–" : duration(Math.max(0, svid.notAfter - now))),
      figure("on record for", duration(now - startedAt)),
      problem === null ? null : fact("why there is none", `${problem.reason}: ${problem.description}`, "long"),
      svid === null ? null : fact("SPIFFE ID", identifier(svid.spiffeId), "long"),
      svid === null ? null : fact("valid", [dateTime(svid.notBefore), " to ", dateTime(svid.notAfter)], "long"),
      svid === null ? null : fact("serial number", identifier(svid.serialNumber), "long"),
      svid === null ? null : fact("fingerprint (SHA-256)", identifier(svid.fingerprint), "long"),
      ...bundles.map((bundle) => fact(`bundle of ${bundle.trustDomain}`, authorities(bundle.authorities), "long"))
    ),
    h("h3", { class: "caption" }, "Rotations and problems"),
    table(
      "Rotations and problems of the identity",
      ["time", "event"],
      history.map((event) =>
        h("tr", {}, h("td", { class: "time" }, time(event.time)), h("td", { class: "text" }, became(event)))
      )
    )
  )

/** @param {Snapshot} snapshot */
export const pool = ({ pool }) =>
  pool === null
    ? null
    : section(
        "Connection pool",
        "wide",
        h(
          "dl",
          { class: "facts" },
          figure("in use", count(pool.inUse)),
          figure("idle", count(pool.idle)),
          figure("being opened", count(pool.opening)),
          figure("waiting for one", count(pool.waiting)),
          figure("leases so far", count(pool.totalAcquisitions)),
          figure("made so far", count(pool.totalCreations)),
          figure("ended so far", count(pool.totalCleanups))
        )
      )
