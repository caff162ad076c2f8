/**
 * Decides which requests are answered. On loopback every process of the machine may, and a browser is kept from asking on behalf of a site: it tells
 * of the site in `Host` (a name of the attacker's that resolves to 127.0.0.1 is in there), `Origin` and `Sec-Fetch-Site`.
 * Behind a secure server the caller is a verified peer, and the same holds for its browser: its own certificate, or a tunnel on
 * its machine that has one, would otherwise serve every site whose name resolves to the server or to the tunnel.
 */
import { isIP } from "node:net"
import { PeerIdentity } from "@agentweave/transport/PeerIdentity"
import { hostOf } from "@agentweave/transport/Wire"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { hasProperty } from "effect/Predicate"

export interface Refusal {
  readonly status: 403 | 415 | 421
  readonly error: string
}

type Request = HttpServerRequest.HttpServerRequest

const forbidden = (error: string): Refusal => ({ status: 403, error })

/** `Host` without its port, and without a dot at its end; the port may be that of a tunnel to this machine. */
const hostName = (host: string): string => host.replace(/:\d+$/, "").replace(/\.$/, "").toLowerCase()

const loopbackNames: ReadonlySet<string> = new Set(["127.0.0.1", "[::1]", "localhost"])

const foreignHost = ({ headers }: Request): Refusal | undefined => {
  const { host = "" } = headers
  return loopbackNames.has(hostName(host))
    ? undefined
    : {
        status: 421,
        error: `expected a Host of this machine (127.0.0.1, [::1], localhost), got ${JSON.stringify(host)}`
      }
}

/** The name that the client has called in its TLS handshake (SNI, RFC 6066 section 3); a client that calls an address gives none. */
const calledName = ({ source }: Request): string | undefined => {
  const socket = hasProperty(source, "socket") ? source.socket : undefined
  const name = hasProperty(socket, "servername") ? socket.servername : undefined
  return typeof name === "string" ? name.toLowerCase() : undefined
}

const isAddress = (host: string): boolean => isIP(hostOf(host)) !== 0

/**
 * A name in `Host` is the one that the connection was made for: that of a site which resolves to a tunnel is not, since the
 * tunnel makes the connection. An address cannot be made to lead elsewhere.
 */
const otherHost = (request: Request): Refusal | undefined => {
  const { host = "" } = request.headers
  const name = hostName(host)
  const called = calledName(request)
  if (loopbackNames.has(name) || isAddress(name) || name === called) return undefined
  const expected = called === undefined ? "an IP address or localhost" : `${called}, an IP address or localhost`
  return {
    status: 421,
    error: `expected the Host that the TLS connection was made for (${expected}), got ${JSON.stringify(host)}`
  }
}

/** A browser names the origin of a page in every request of a script but some plain GETs, for which there is `Sec-Fetch-Site`. */
const foreignOrigin = ({ headers }: Request, scheme: "http" | "https"): Refusal | undefined => {
  const { host = "", origin } = headers
  if (origin === undefined || origin.toLowerCase() === `${scheme}://${host}`.toLowerCase()) return undefined
  return forbidden(`expected a request of the inspector's own page, got one of ${JSON.stringify(origin)}`)
}

/** `none` is an address that a person typed. `same-site` is any other port of this machine, so it is foreign. */
const foreignSite = ({ headers, method }: Request): Refusal | undefined => {
  const site = headers["sec-fetch-site"]
  if (site === undefined || site === "same-origin" || (site === "none" && method === "GET")) return undefined
  return forbidden(`expected a request of the inspector's own page, got one with Sec-Fetch-Site: ${site}`)
}

/** A page of another site can send forms and text without being asked first, but no JSON. */
const notJson = ({ headers, method }: Request): Refusal | undefined => {
  if (method !== "POST") return undefined
  const type = headers["content-type"]?.split(";")[0]?.trim().toLowerCase()
  return type === "application/json"
    ? undefined
    : { status: 415, error: `expected application/json, got ${JSON.stringify(type ?? "")}` }
}

/** Decides on a request for the page. A link on another site may lead to it. */
export type Access<R> = (request: Request) => Effect.Effect<Refusal | undefined, never, R>

export const onLoopback: Access<never> = (request) =>
  Effect.succeed(foreignHost(request) ?? foreignOrigin(request, "http"))

export const byVerifiedPeers: Access<PeerIdentity> = (request) =>
  Effect.map(PeerIdentity, (identity) =>
    Option.isSome(identity.of(request))
      ? (otherHost(request) ?? foreignOrigin(request, "https"))
      : forbidden("expected a request on a verified connection, got one of another server")
  )

/** Decides on a request for data or for a change, after {@link Access}. */
export const ofOwnPage = (request: Request): Refusal | undefined => foreignSite(request) ?? notJson(request)
