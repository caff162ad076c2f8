/**
 * Where peers are found: from a SPIFFE ID to a base URL. An address is a hint and no promise: who is at the other end is
 * proven by the handshake, whatever a directory says.
 *
 * @since 0.1.0
 */
import type { InvalidSpiffeIdError } from "@agentweave/spiffe/InvalidSpiffeIdError"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import { isIterable } from "effect/Predicate"
import * as Schema from "effect/Schema"
import { InvalidConfigError } from "./InvalidConfigError.js"
import { decoder, Text, ValueOf } from "./internal/config.js"
import * as internal from "./internal/directory/urlTemplate.js"
import { parseBase } from "./internal/http/url.js"
import { noAddress } from "./internal/peer.js"
import type { ConnectionError } from "./TransportError.js"

/**
 * Finds the base URL of a peer by its SPIFFE ID.
 *
 * @since 0.1.0
 * @category tags
 */
export class PeerDirectory extends Context.Tag("@agentweave/transport/PeerDirectory")<
  PeerDirectory,
  {
    /**
     * The absolute `https:` URL that a peer's relative URLs are appended to. Asked each time a connection is opened, so
     * an address may change. Fails with `ConnectionError` (reason `NoAddress`, outcome `NotSent`).
     */
    readonly resolve: (peer: SpiffeId.SpiffeId) => Effect.Effect<string, ConnectionError>
    /**
     * The peers it knows, where it can name them: by it a matcher that names no ID finds an address, and
     * `Transport.layerHttpClient` the peer of an origin.
     */
    readonly peers?: Effect.Effect<ReadonlyArray<SpiffeId.SpiffeId>>
  }
>() {}

/**
 * BaseUrl URLs by SPIFFE ID.
 *
 * @since 0.1.0
 * @category models
 */
export type Entries = Readonly<Record<string, string | URL>> | ReadonlyMap<string, string | URL>

const fromEntries = Effect.fnUntraced(function* (entries: Entries) {
  const known = new Map<SpiffeId.SpiffeId, string>()
  const pairs: Iterable<readonly [string, string | URL]> =
    entries instanceof Map ? entries.entries() : Object.entries(entries)
  for (const [peer, url] of pairs) {
    const id = yield* SpiffeId.parse(peer)
    yield* Either.mapLeft(
      parseBase(url),
      (description) => new InvalidConfigError({ config: "PeerDirectory", field: peer, description })
    )
    known.set(id, String(url))
  }
  return PeerDirectory.of({
    peers: Effect.sync(() => Array.from(known.keys())),
    resolve: (peer) => {
      const url = known.get(peer)
      return url === undefined
        ? Effect.fail(noAddress(peer, `expected one of the ${known.size} peers of the directory`))
        : Effect.succeed(url)
    }
  })
})

/**
 * A fixed table. IDs and URLs are checked when the layer is built.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { PeerDirectory } from "@agentweave/transport"
 *
 * const Directory = PeerDirectory.layerStatic({
 *   "spiffe://example.org/billing": "https://billing.internal:8443/v1",
 *   "spiffe://example.org/search": "https://10.0.0.7:8443"
 * })
 * ```
 */
export const layerStatic = (entries: Entries): Layer.Layer<PeerDirectory, InvalidSpiffeIdError | InvalidConfigError> =>
  Layer.effect(PeerDirectory, fromEntries(entries))

/**
 * {@link layerStatic} with addresses from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { PeerDirectory } from "@agentweave/transport"
 * import { Config } from "effect"
 *
 * const Directory = PeerDirectory.layerConfig({
 *   "spiffe://example.org/billing": Config.string("BILLING_URL")
 * })
 * ```
 */
export const layerConfig = (
  entries: Config.Config.Wrap<Readonly<Record<string, string>>>
): Layer.Layer<PeerDirectory, ConfigError | InvalidSpiffeIdError | InvalidConfigError> =>
  Layer.effect(PeerDirectory, Effect.flatMap(Config.unwrap(entries), fromEntries))

/**
 * Addresses made from the ID itself, for platforms that name services by rule. The template is a URL whose host holds
 * placeholders: `{trustDomain}`; `{path}`, the path's segments as DNS labels in their order; `{1}`, `{2}`, ... a single
 * segment.
 *
 * A segment must be a DNS label as it is (RFC 1123 section 2.1, lower case): letters, digits and inner hyphens, at most
 * 63 of them. Nothing is escaped or folded, since two IDs must not meet in one name: a segment with an upper-case letter,
 * a dot or an underscore has no address, nor has one that reads as an encoded label (`xn--`, RFC 5891 section 4.2.3.1), nor
 * an ID whose host would read as an IP address.
 *
 * A rule names no peers; `peers` are those that a program knows besides, and each must have an address.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { PeerDirectory } from "@agentweave/transport"
 *
 * // spiffe://example.org/ns/prod/sa/billing -> https://billing.prod.svc.cluster.local:8443
 * const Directory = PeerDirectory.layerTemplate("https://{4}.{2}.svc.cluster.local:8443")
 * ```
 */
export const layerTemplate = (
  template: string,
  options: { readonly peers?: Iterable<string> | undefined } = {}
): Layer.Layer<PeerDirectory, InvalidConfigError> => Layer.effect(PeerDirectory, fromTemplate(template, options))

const invalid = (field: string) => (description: string) =>
  new InvalidConfigError({ config: "PeerDirectory", field, description })

/** A single text is no list, although its characters can be iterated. */
const isList = (input: unknown): input is Iterable<string> => isIterable(input) && typeof input !== "string"

const decodeTemplate = decoder(
  "PeerDirectory",
  Schema.Struct({ template: Text, peers: Schema.optional(ValueOf("a list of SPIFFE IDs", isList)) })
)

const fromTemplate = Effect.fnUntraced(function* (
  text: string,
  options: { readonly peers?: Iterable<string> | undefined }
) {
  const { peers = [], template } = yield* decodeTemplate({ ...options, template: text })
  const parsed = yield* Either.mapLeft(internal.parse(template), invalid("template"))
  const known = yield* Effect.forEach(peers, (peer) =>
    Either.mapLeft(SpiffeId.parse(String(peer)), ({ message }) => invalid("peers")(message))
  )
  for (const peer of known) yield* Either.mapLeft(internal.expand(parsed, peer), invalid("peers"))
  return PeerDirectory.of({
    peers: Effect.succeed(known),
    resolve: (peer) => Either.mapLeft(internal.expand(parsed, peer), (why) => noAddress(peer, why))
  })
})
