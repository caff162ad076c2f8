// @ts-check
/** Follows the stream of snapshots and draws each. */

import { traffic } from "./charts.js"
import { section } from "./format.js"
import { events, refusals, requests } from "./lists.js"
import { peers } from "./peers.js"
import { draw } from "./render.js"
import { identity, pool } from "./state.js"

/** @typedef {typeof import("../src/Snapshot.js").Snapshot.Encoded} Snapshot */

/** @param {string} id */
const element = (id) => {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`expected an element #${id}`)
  return found
}

const main = element("main")
const own = element("own")
const status = element("status")
const pause = element("pause")

/** Where the page is mounted, with a slash at its end. */
const base = new URL(location.pathname.replace(/\/?$/, "/"), location.href)
const retryMillis = 5_000

/** @type {EventSource | undefined} */
let source
/** @type {number | undefined} */
let retry

/**
 * @param {string} text
 * @param {"" | "good" | "warn" | "bad"} kind
 */
const say = (text, kind) => {
  if (status.textContent !== text) status.textContent = text
  status.className = kind === "" ? "" : `chip ${kind}`
}

/** @param {Snapshot} snapshot */
const show = (snapshot) => {
  own.textContent = snapshot.identity.svid?.spiffeId ?? "no identity"
  document.title = `${snapshot.identity.svid?.spiffeId ?? "no identity"} · Inspector`
  const sections = [
    identity(snapshot),
    section("Outgoing requests", "", ...traffic(snapshot.outgoing)),
    section("Incoming requests", "", ...traffic(snapshot.incoming)),
    pool(snapshot),
    peers(snapshot),
    refusals(snapshot),
    requests(snapshot),
    events(snapshot)
  ]
  draw(
    main,
    sections.flatMap((one) => (one === null ? [] : [one]))
  )
}

const stop = () => {
  source?.close()
  source = undefined
  clearTimeout(retry)
}

const follow = () => {
  stop()
  say("Connecting", "warn")
  const opened = new EventSource(new URL("api/events", base))
  source = opened
  opened.addEventListener("message", ({ data }) => {
    show(JSON.parse(data))
    say("Live", "good")
  })
  opened.addEventListener("error", () => {
    say("Not connected, trying again", "bad")
    // The browser tries again by itself, but not where it was refused, as by too many readers.
    if (opened.readyState === EventSource.CLOSED) retry = window.setTimeout(follow, retryMillis)
  })
}

pause.addEventListener("click", () => {
  const isPaused = pause.getAttribute("aria-pressed") !== "true"
  pause.setAttribute("aria-pressed", `${isPaused}`)
  if (isPaused) {
    stop()
    say("Paused", "warn")
  } else follow()
})

/** @param {string} peer */
const reset = async (peer) => {
  const answer = await fetch(new URL("api/reset", base), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ peer })
  })
  if (!answer.ok) say(`The reset failed with ${answer.status}`, "bad")
}

main.addEventListener("click", ({ target }) => {
  const peer = target instanceof Element ? target.getAttribute("data-reset") : null
  if (peer !== null) reset(peer).catch(() => say("The reset failed", "bad"))
})

follow()
