/** Audit events as lines for people. */
import { hasProperty } from "effect/Predicate"

const field = (key: string, value: unknown): string =>
  `${key}=${typeof value === "object" ? JSON.stringify(value) : String(value)}`

/** Milliseconds since the epoch as a date; whatever came, where it is none. */
export const dateOf = (time: unknown): string =>
  typeof time === "number" && Math.abs(time) <= 8.64e15 ? new Date(time).toISOString() : "unknown date"

/** An event with all its fields. */
export const eventLine = (event: object): string => {
  const { _tag, time, ...rest } = { _tag: undefined, time: undefined, ...event }
  return [dateOf(time), String(_tag), ...Object.entries(rest).map(([key, value]) => field(key, value))].join(" ")
}

/** The event of a record that was read from an audit file; `undefined` for a record of another kind. */
export const eventOf = (record: unknown): object | undefined =>
  hasProperty(record, "event") && typeof record.event === "object" && record.event !== null ? record.event : undefined
