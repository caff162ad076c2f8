/**
 * Where the Workload API is: a Unix domain socket, or a TCP port on an IP address (SPIFFE_Workload_Endpoint section 4).
 *
 * @since 0.1.0
 */
import { isIPv4, isIPv6 } from "node:net"
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Either from "effect/Either"
import { type EndpointRule, InvalidEndpointError } from "./InvalidEndpointError.js"

/**
 * The address of a Workload API: a Unix socket or a TCP address.
 *
 * @since 0.1.0
 * @category models
 */
export type WorkloadEndpoint = UnixEndpoint | TcpEndpoint

/**
 * A Unix domain socket.
 *
 * @since 0.1.0
 * @category models
 */
export interface UnixEndpoint {
  readonly _tag: "Unix"
  /** Absolute path of the socket. */
  readonly path: string
}

/**
 * A TCP address.
 *
 * @since 0.1.0
 * @category models
 */
export interface TcpEndpoint {
  readonly _tag: "Tcp"
  /** An IP address, never a name; IPv6 without brackets. */
  readonly host: string
  readonly port: number
}

/**
 * The variable that locates the endpoint when a program was not told explicitly: `SPIFFE_ENDPOINT_SOCKET`.
 *
 * @since 0.1.0
 * @category constants
 */
export const variable = "SPIFFE_ENDPOINT_SOCKET"

/**
 * The longest path a socket can have, in bytes: `sockaddr_un` without its final NUL. Node cuts a longer one silently, and
 * would open another socket than the one named.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxPathBytes: number = process.platform === "linux" ? 107 : 103

const expectations: Record<EndpointRule, string> = {
  Missing: `an address in ${variable} or in the option "endpoint"`,
  Unreadable: `configuration that can be read for ${variable}`,
  Scheme: `a URI that begins with "unix:" or "tcp:"`,
  Character: "no blank or control character",
  PercentEncoding: "every % followed by two hexadecimal digits, which stand for text without control characters",
  AuthorityNotAllowed: `no host in a "unix:" address, as in unix:///run/agent.sock`,
  UserInfoNotAllowed: "no user in the address",
  HostMissing: "an IP address, as in tcp://127.0.0.1:8000",
  HostNotIp: "an IP address and not a name, as in tcp://127.0.0.1:8000",
  PortMissing: "a port, as in tcp://127.0.0.1:8000",
  PortOutOfRange: "a port from 1 to 65535",
  PathMissing: "the absolute path of a socket, as in unix:///run/agent.sock",
  PathNotAbsolute: "an absolute path, as in unix:///run/agent.sock",
  PathTooLong: `a path of at most ${maxPathBytes} bytes`,
  PathNotAllowed: `no path in a "tcp:" address`,
  QueryNotAllowed: "no query in the address",
  FragmentNotAllowed: "no fragment in the address"
}

/**
 * The error of an address that breaks a rule.
 *
 * @internal
 */
export const refuse = (rule: EndpointRule, input: string): Either.Either<never, InvalidEndpointError> =>
  Either.left(new InvalidEndpointError({ rule, input: input.slice(0, 256), expected: expectations[rule] }))

const controlCharacter = /\p{Cc}/u

const parseUnix = (rest: string, input: string): Either.Either<UnixEndpoint, InvalidEndpointError> => {
  const slash = rest.startsWith("//") ? rest.indexOf("/", 2) : 0
  if (slash !== 0 && slash !== 2 && rest.length > 2) return refuse("AuthorityNotAllowed", input)
  const path = slash < 0 ? "" : rest.slice(slash)
  if (path === "" || path === "/") return refuse("PathMissing", input)
  if (!path.startsWith("/")) return refuse("PathNotAbsolute", input)
  const decoded = Either.try(() => decodeURIComponent(path))
  if (Either.isLeft(decoded) || controlCharacter.test(decoded.right)) return refuse("PercentEncoding", input)
  if (Buffer.byteLength(decoded.right) > maxPathBytes) return refuse("PathTooLong", input)
  return Either.right({ _tag: "Unix", path: decoded.right })
}

const parseTcp = (rest: string, input: string): Either.Either<TcpEndpoint, InvalidEndpointError> => {
  if (!rest.startsWith("//")) return refuse("HostMissing", input)
  const slash = rest.indexOf("/", 2)
  const authority = slash < 0 ? rest.slice(2) : rest.slice(2, slash)
  if (authority.includes("@")) return refuse("UserInfoNotAllowed", input)
  if (slash >= 0) return refuse("PathNotAllowed", input)
  const { host, port } = /^(?<host>\[[^\]]*\]|[^:]*)(?::(?<port>.*))?$/.exec(authority)?.groups ?? {}
  if (host === undefined) return refuse("HostNotIp", input)
  if (host === "") return refuse("HostMissing", input)
  const address = host.startsWith("[") ? host.slice(1, -1) : host
  const isIp = host.startsWith("[") ? isIPv6(address) && !address.includes("%") : isIPv4(address)
  if (!isIp) return refuse("HostNotIp", input)
  if (port === undefined || port === "") return refuse("PortMissing", input)
  const number = /^[0-9]{1,5}$/.test(port) ? Number(port) : 0
  if (number < 1 || number > 65_535) return refuse("PortOutOfRange", input)
  return Either.right({ _tag: "Tcp", host: address, port: number })
}

/**
 * Parses an address: `unix:///path/to/socket` (or `unix:/path/to/socket`), whose path may be percent-encoded, or
 * `tcp://<IP address>:<port>`. Nothing else may be in it.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { WorkloadEndpoint } from "@agentweave/workload-api"
 * import { Either } from "effect"
 *
 * console.log(Either.isRight(WorkloadEndpoint.parse("unix:///run/spire/agent.sock"))) // true
 * console.log(Either.isLeft(WorkloadEndpoint.parse("tcp://localhost:8000"))) // true: not an IP address
 * ```
 */
export const parse = (text: string): Either.Either<WorkloadEndpoint, InvalidEndpointError> => {
  if (text === "") return refuse("Missing", text)
  if (text.includes(" ") || controlCharacter.test(text)) return refuse("Character", text)
  // RFC 3986 section 3.1: schemes are compared without regard to case.
  const scheme = /^(unix|tcp):/i.exec(text)?.[1]?.toLowerCase()
  if (scheme === undefined) return refuse("Scheme", text)
  if (text.includes("#")) return refuse("FragmentNotAllowed", text)
  if (text.includes("?")) return refuse("QueryNotAllowed", text)
  const rest = text.slice(scheme.length + 1)
  return scheme === "unix" ? parseUnix(rest, text) : parseTcp(rest, text)
}

/**
 * The address of a socket.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { WorkloadEndpoint } from "@agentweave/workload-api"
 *
 * console.log(WorkloadEndpoint.format(WorkloadEndpoint.unix("/run/spire/agent.sock"))) // unix:///run/spire/agent.sock
 * ```
 */
export const unix = (path: string): UnixEndpoint => ({ _tag: "Unix", path })

/**
 * The endpoint that `SPIFFE_ENDPOINT_SOCKET` names.
 *
 * @since 0.1.0
 * @category config
 */
export const config: Config.Config<WorkloadEndpoint> = Config.string(variable).pipe(
  Config.mapOrFail((text) => Either.mapLeft(parse(text), (error) => ConfigError.InvalidData([variable], error.message)))
)

/**
 * The address as `SPIFFE_ENDPOINT_SOCKET` states it.
 *
 * @since 0.1.0
 * @category conversions
 */
export const format = (self: WorkloadEndpoint): string => {
  switch (self._tag) {
    case "Unix":
      return `unix://${encodeURIComponent(self.path).replaceAll("%2F", "/")}`
    case "Tcp":
      return `tcp://${isIPv6(self.host) ? `[${self.host}]` : self.host}:${self.port}`
  }
}
