/** Where an inspector is and how it is asked: in plain HTTP on loopback, or over a verified connection. */
import * as Snapshot from "@agentweave/inspector/Snapshot"
import { AuditLog, BodyTimeout, SecureChannel } from "@agentweave/transport"
import { NodeConnector } from "@agentweave/transport-node"
import { HttpClient, HttpClientRequest, type HttpClientResponse } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { Context, Data, Duration, Effect, Either, Layer, Option, Schema, Stream } from "effect"
import { hasProperty } from "effect/Predicate"
import { UsageError } from "../UsageError.js"
import * as identity from "./identity.js"

/** Where an inspector is, and as whom it is asked. */
export interface Options extends identity.Source {
  readonly url?: string | undefined
  readonly expect?: string | undefined
  readonly timeout?: Duration.DurationInput | undefined
}

/** Where `Inspector.layer` listens by default. */
export const defaultUrl = "http://127.0.0.1:9471/"

/** No inspector has answered, or not with a snapshot. */
export class InspectorError extends Data.TaggedError("InspectorError")<{
  /**
   * - `Unreachable`: nothing answers at the address.
   * - `Refused`: what is there does not answer the request; the message has its reason.
   * - `Unreadable`: the answer is no snapshot that this version can read.
   * - `Ended`: the inspector has ended the stream, as it does when its process ends.
   */
  readonly reason: "Unreachable" | "Refused" | "Unreadable" | "Ended"
  readonly message: string
}> {}

/** A snapshot, and the JSON it was read from, which may have more fields. */
export interface Seen {
  readonly snapshot: Snapshot.Snapshot
  readonly json: unknown
}

/** Most characters of a snapshot. A full one has about 300,000. */
const maxLength = 16 * 1024 * 1024

const loopback: ReadonlySet<string> = new Set(["127.0.0.1", "[::1]", "localhost"])

/** The address of the inspector, with a slash at its end. */
const parseUrl = ({ expect, url = defaultUrl }: Options): Either.Either<URL, UsageError> => {
  const fail = (message: string) => Either.left(new UsageError({ message }))
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed === undefined || !/^https?:$/.test(parsed.protocol))
    return fail(`expected a URL such as ${defaultUrl}, got ${JSON.stringify(url)}`)
  if (parsed.protocol === "https:" && expect === undefined)
    return fail("expected --expect with an https: URL: the SPIFFE ID of the process that is inspected")
  if (parsed.protocol === "http:" && expect !== undefined)
    return fail("expected an https: URL with --expect: over http: nobody proves who they are")
  if (parsed.protocol === "http:" && !loopback.has(parsed.hostname))
    return fail(
      `expected a loopback address with http:, got ${parsed.hostname}: use https: with --expect, or a tunnel (ssh -L 9471:127.0.0.1:9471 HOST)`
    )
  return Either.right(new URL(parsed.pathname.replace(/\/?$/, "/"), parsed.origin))
}

const decodeSnapshot = Schema.decodeUnknownEither(Snapshot.Snapshot)

const unreadable = (url: URL, got: string): InspectorError =>
  new InspectorError({ reason: "Unreadable", message: `expected a snapshot of the inspector at ${url}, got ${got}` })

const read = (url: URL, text: string): Either.Either<Seen, InspectorError> =>
  Either.gen(function* () {
    const json = yield* Either.try({ try: (): unknown => JSON.parse(text), catch: () => unreadable(url, "no JSON") })
    const snapshot = yield* Either.mapLeft(decodeSnapshot(json), () =>
      unreadable(
        url,
        hasProperty(json, "version") && json.version !== 1 ? `version ${json.version}` : "JSON of another form"
      )
    )
    return { snapshot, json }
  })

/** Joins the pieces of a text up to the longest snapshot. */
const joined = <E, R>(url: URL, pieces: Stream.Stream<string, E, R>) =>
  Stream.runFoldEffect(pieces, "", (all, piece) =>
    all.length + piece.length > maxLength
      ? Effect.fail(unreadable(url, `more than ${maxLength} characters`))
      : Effect.succeed(all + piece)
  )

/** The data of server-sent events. */
const eventData = <E, R>(url: URL, pieces: Stream.Stream<string, E, R>) =>
  pieces.pipe(
    Stream.mapAccumEffect("", (rest, piece) => {
      const blocks = `${rest}${piece}`.split("\n\n")
      const last = blocks.pop() ?? ""
      return last.length > maxLength
        ? Effect.fail(unreadable(url, `more than ${maxLength} characters`))
        : Effect.succeed([last, blocks])
    }),
    Stream.mapConcat((blocks) => blocks),
    Stream.filterMap((block) =>
      block.startsWith("data: ") ? Option.some(block.slice("data: ".length)) : Option.none<string>()
    )
  )

/** Describes an answer that is no 200; an inspector gives its reason. */
const refused = (url: URL, response: HttpClientResponse.HttpClientResponse) =>
  Effect.flatMap(
    Effect.orElseSucceed(joined(url, Stream.decodeText(response.stream)), () => ""),
    (text) => {
      const body = Either.getOrUndefined(Either.try((): unknown => JSON.parse(text)))
      const why = hasProperty(body, "error") ? `: ${String(body.error)}` : ""
      return new InspectorError({
        reason: "Refused",
        message: `expected an inspector at ${url}, got an answer with status ${response.status}${why}`
      })
    }
  )

/** How asking can fail: by the inspector, or by the connection to it. */
interface Failure {
  readonly _tag: string
  readonly message: string
}

/** An inspector that can be asked. */
interface Source {
  readonly snapshot: Effect.Effect<Seen, Failure>
  /** Each snapshot that the inspector sends; it fails where they end. */
  readonly changes: Stream.Stream<Seen, Failure>
}

/** The client that asks: a plain one, or a channel. */
type Client = Pick<HttpClient.HttpClient.With<Failure>, "execute">

const sourceOf = (url: URL, timeout: Duration.DurationInput, client: Client): Source => {
  const within = <A, E1>(ask: Effect.Effect<A, E1>) =>
    Effect.timeoutFail(ask, {
      duration: timeout,
      onTimeout: () =>
        new InspectorError({
          reason: "Unreachable",
          message: `expected an answer of the inspector at ${url} within ${Duration.format(timeout)}, got none`
        })
    })
  const ask = (path: string) =>
    Effect.flatMap(client.execute(HttpClientRequest.get(new URL(path, url))), (response) =>
      response.status === 200 ? Effect.succeed(response) : refused(url, response)
    )
  const broken = (cause: { readonly message: string }) =>
    new InspectorError({
      reason: "Ended",
      message: `the answer of the inspector at ${url} broke off: ${cause.message}`
    })
  const texts = ({ stream }: HttpClientResponse.HttpClientResponse) =>
    Stream.decodeText(Stream.mapError(stream, broken))
  const ended = new InspectorError({
    reason: "Ended",
    message: `the inspector at ${url} has ended its stream, as it does when its process ends`
  })
  return {
    snapshot: ask("api/snapshot").pipe(
      Effect.flatMap((response) => joined(url, texts(response))),
      Effect.flatMap((text) => read(url, text)),
      within
    ),
    changes: Stream.unwrap(
      Effect.map(within(ask("api/events")).pipe(BodyTimeout.withBodyTimeout(Duration.infinity)), (response) =>
        Stream.mapEffect(eventData(url, texts(response)), (text) => read(url, text)).pipe(
          Stream.concat(Stream.fail(ended))
        )
      )
    )
  }
}

/** Plain HTTP to a process of this machine. */
const plain = (url: URL) =>
  Effect.map(Layer.build(NodeHttpClient.layer), (services) =>
    HttpClient.transformResponse(
      Context.get(services, HttpClient.HttpClient),
      Effect.mapError((error) => {
        const why = hasProperty(error.cause, "message") ? String(error.cause.message) : error.message
        return new InspectorError({
          reason: "Unreachable",
          message: `expected an inspector at ${url}, got ${why}. A process has one with Inspector.layer of @agentweave/inspector; it says where`
        })
      })
    )
  )

/** A verified connection to the process; our own identity as in `probe`. */
const verified = (url: URL, peer: string, timeout: Duration.DurationInput, options: Options) =>
  Effect.gen(function* () {
    const ours = yield* Layer.build(identity.layer(options))
    const services = yield* NodeConnector.layer.pipe(
      Layer.provide(Layer.succeedContext(ours)),
      Layer.provide(AuditLog.layerMemory([])),
      Layer.build
    )
    return yield* SecureChannel.make({
      peer,
      baseUrl: url.origin,
      config: { timeout, connectTimeout: timeout }
    }).pipe(Effect.provide(services), Effect.provide(ours))
  })

/** Fails where it is called wrongly, or where we have no identity; whether an inspector answers shows when it is asked. */
export const open = (options: Options) =>
  Effect.gen(function* () {
    const { expect, timeout = "10 seconds" } = options
    const url = yield* parseUrl(options)
    return expect === undefined
      ? sourceOf(url, timeout, yield* plain(url))
      : sourceOf(url, timeout, yield* verified(url, expect, timeout, options))
  })
