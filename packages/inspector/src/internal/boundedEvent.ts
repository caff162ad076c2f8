import type { AuditEvent } from "@agentweave/transport/AuditEvent"

/** Most characters kept of one text of an event: a SPIFFE ID has at most 2,048. */
const maxLength = 2_048

/** The text, at most so long. A copy of its own: a slice would keep the whole text in memory. */
export const boundedText = (text: string): string =>
  text.length > maxLength ? `${Buffer.from(text.slice(0, maxLength)).toString("utf8")}…` : text

const isLong = (value: unknown): boolean => typeof value === "string" && value.length > maxLength

/** The event, its texts cut to a bounded length; itself where nothing is longer, which is the rule. */
export const bounded = <Event extends AuditEvent>(event: Event): Event => {
  if (!Object.values(event).some(isLong)) return event
  const entries = Object.entries(event).map(([key, value]) => [
    key,
    typeof value === "string" ? boundedText(value) : value
  ])
  return Object.fromEntries(entries)
}
