import type * as Headers from "@effect/platform/Headers"

const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
const month = `(?<month>${months.join("|")})`
const time = "(?<hours>\\d{2}):(?<minutes>\\d{2}):(?<seconds>\\d{2})"

/** The forms of an HTTP-date, RFC 9110 section 5.6.7: the one in use, and two that have to be understood. */
const forms = [
  new RegExp(`^[A-Z][a-z]{2}, (?<day>\\d{2}) ${month} (?<year>\\d{4}) ${time} GMT$`),
  new RegExp(`^[A-Z][a-z]+day, (?<day>\\d{2})-${month}-(?<year>\\d{2}) ${time} GMT$`),
  new RegExp(`^[A-Z][a-z]{2} ${month} (?<day>[ \\d]\\d) ${time} (?<year>\\d{4})$`)
]

/** Milliseconds since 1970; long ago for what is no date. */
const httpDate = (text: string, wallClock: number): number => {
  const parts = forms.map((form) => form.exec(text)?.groups).find((groups) => groups !== undefined)
  if (parts === undefined) {
    return Number.NEGATIVE_INFINITY
  }
  const { day, month = "", year = "", hours, minutes, seconds } = parts
  return Date.UTC(
    year.length === 2 ? fullYear(Number(year), wallClock) : Number(year),
    months.indexOf(month),
    Number(day),
    Number(hours),
    Number(minutes),
    Number(seconds)
  )
}

/** Two digits name the latest year that ends with them and is not more than 50 years ahead. */
const fullYear = (digits: number, wallClock: number): number => {
  const latest = new Date(wallClock).getUTCFullYear() + 50
  return latest - ((latest - digits) % 100)
}

/**
 * Milliseconds a peer asks to wait, by RFC 9110 section 10.2.3: `Retry-After` in seconds, or as a date to be compared with
 * the wall clock. Not above zero without the header, for a date that has passed, and for a value that is neither.
 */
export const retryAfter = (headers: Headers.Headers, wallClock: number): number => {
  const value = headers["retry-after"]?.trim() ?? ""
  return /^\d+$/.test(value) ? Number(value) * 1_000 : httpDate(value, wallClock) - wallClock
}
