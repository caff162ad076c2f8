/** The target that is served and recorded, and the requests that are refused for how they are written (RFC 9112). */
import type { IncomingMessage } from "node:http"

/** RFC 3986 section 3.2.2, without user information: a host, a port, or nothing. */
const isAuthority = (text: string): boolean => /^[A-Za-z0-9._~!$&'()*+,;=:%[\]-]*$/.test(text)

/** Whether there is the one `Host` that HTTP/1.1 requires, and not another (RFC 9112 section 3.2). */
const hasOneHost = ({ headers, httpVersion, rawHeaders }: IncomingMessage): boolean => {
  let count = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]
    if (name?.length === 4 && name.toLowerCase() === "host") count++
  }
  return count === 0 ? httpVersion === "1.0" : count === 1 && isAuthority(headers.host ?? "")
}

/**
 * Gives a request the one form of its target that is recorded, traced, routed and served: the origin-form. An absolute
 * target (RFC 9112 section 3.2.2) becomes its path and query, and its authority the `Host`; `*` stays as it is for `OPTIONS`.
 * Whether the target and `Host` are sound: with any other the request is bad (section 3.2).
 */
const normalizeTarget = (message: IncomingMessage): boolean => {
  if (!hasOneHost(message)) return false
  const target = message.url ?? ""
  if (target.startsWith("/")) return !target.includes("#")
  if (target === "*") return message.method === "OPTIONS"
  const [, authority = "", path, query = ""] = /^https?:\/\/([^/?#]+)([^?#]*)(\?[^#]*)?$/i.exec(target) ?? []
  if (path === undefined || !isAuthority(authority)) return false
  message.url = `${path === "" ? "/" : path}${query}`
  message.headers.host = authority
  return true
}

/** Whether the body's length is beyond doubt: `chunked` is the one coding there is, and HTTP/1.0 has none (section 6.1). */
const hasCertainLength = ({ headers, httpVersion }: IncomingMessage): boolean => {
  const coding = headers["transfer-encoding"]
  return coding === undefined || (coding.toLowerCase() === "chunked" && httpVersion === "1.1")
}

/** Normalizes the target of a request; for one that is badly written it is the status that refuses it. */
export const normalizeOrRefuse = (message: IncomingMessage): number | undefined => {
  if (message.httpVersionMajor !== 1) return 505
  return normalizeTarget(message) && hasCertainLength(message) ? undefined : 400
}
