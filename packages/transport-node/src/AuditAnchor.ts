/**
 * A witness outside the audit file. From inside a file the loss of its end cannot be shown: whoever may write to it may cut
 * it back to any checkpoint. An anchor is given each checkpoint as it is written, so that the loss shows.
 *
 * @since 0.1.0
 */
import { hash } from "node:crypto"
import { open } from "node:fs/promises"
import { join } from "node:path"
import type { InvalidConfigError } from "@agentweave/spiffe/InvalidConfigError"
import { decoder, Text } from "@agentweave/spiffe/OptionsDecoder"
import { caller, type PeerIdentity } from "@agentweave/transport/PeerIdentity"
import type { SecureChannel } from "@agentweave/transport/SecureChannel"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { openAppend, openExisting } from "./internal/audit/files.js"

/**
 * A checkpoint as an anchor keeps it.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Anchored = Schema.Struct({
  /** Identity of the log, as the headers of its files name it. */
  log: Schema.String,
  /** Number of the file that the checkpoint is in. */
  file: Schema.NonNegativeInt,
  /** Number of the checkpoint's record. */
  seq: Schema.NonNegativeInt,
  /** SHA-256 of the checkpoint's row, lower-case hex. */
  hash: Schema.String,
  /** The line of the checkpoint, with its signature, as it is in the file. */
  checkpoint: Schema.String
})

/**
 * A checkpoint as an anchor keeps it.
 *
 * @since 0.1.0
 * @category models
 */
export type Anchored = typeof Anchored.Type

/**
 * An anchor could not keep a checkpoint, or not say what it keeps.
 *
 * @since 0.1.0
 * @category errors
 */
export class AuditAnchorError extends Schema.TaggedError<AuditAnchorError>()("AuditAnchorError", {
  description: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  /** The next checkpoint is given to it again. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return this.description
  }
}

/**
 * The anchor of one audit log. `NodeAuditLog.layerFile` uses it where it is provided: each checkpoint is stored after it is
 * on disk, and the latest is asked for when the log is opened, so that a file that was cut or deleted while the log was
 * stopped is noticed, and its successor's header says so. An anchor that fails is logged and never stops the log.
 *
 * @since 0.1.0
 * @category tags
 */
export class AuditAnchor extends Context.Tag("@agentweave/transport-node/AuditAnchor")<
  AuditAnchor,
  {
    /** Keeps a checkpoint. Nothing that was kept before is changed. */
    readonly store: (anchored: Anchored) => Effect.Effect<void, AuditAnchorError>
    /** The newest checkpoint kept; none when there is none. */
    readonly latest: Effect.Effect<Option.Option<Anchored>, AuditAnchorError>
  }
>() {}

const decodeLine = Schema.decodeUnknownOption(Schema.parseJson(Anchored))

/**
 * The checkpoints of an anchor's file, oldest first; what is no checkpoint is left out.
 *
 * @since 0.1.0
 * @category conversions
 */
export const parse = (text: string): ReadonlyArray<Anchored> =>
  text.split("\n").flatMap((line) => Option.toArray(decodeLine(line)))

const failed = (what: string) => (cause: unknown) =>
  new AuditAnchorError({
    description: `expected ${what}, it failed: ${cause instanceof Error ? cause.message : String(cause)}`,
    cause
  })

/** The file of one anchor: appended to, and never read but to its end. */
const fileAt = (path: string): Context.Tag.Service<AuditAnchor> => ({
  store: (anchored) =>
    Effect.tryPromise({
      try: async () => {
        const file = await openAppend(path, open)
        await file
          .appendFile(Buffer.from(`${JSON.stringify(anchored)}\n`))
          .then(() => file.datasync())
          .finally(() => file.close())
      },
      catch: failed(`to anchor a checkpoint in ${path}`)
    }),
  latest: Effect.tryPromise({
    try: async () => {
      const file = await openExisting(path)
      if (file === undefined) return Option.none()
      const text = await file.readFile("utf8").finally(() => file.close())
      return Option.fromNullable(parse(text).at(-1))
    },
    catch: failed(`to read the anchor ${path}`)
  })
})

const decodeFile = decoder("AuditAnchor.layerFile", Schema.Struct({ path: Text }))

/**
 * Keeps checkpoints in a file (mode 0600, appended to): put it on another volume, or where those who may write to the audit
 * file may not.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { AuditAnchor, NodeAuditLog } from "@agentweave/transport-node"
 * import { Layer } from "effect"
 *
 * const Audit = NodeAuditLog.layerFile({ path: "/var/log/web/audit.ndjson" }).pipe(
 *   Layer.provide(AuditAnchor.layerFile({ path: "/mnt/anchors/web.ndjson" }))
 * )
 * ```
 */
export const layerFile = (options: { readonly path: string }): Layer.Layer<AuditAnchor, InvalidConfigError> =>
  Layer.effect(
    AuditAnchor,
    Effect.map(decodeFile(options), ({ path }) => fileAt(path))
  )

/** Where an anchor is served, unless told otherwise. */
const defaultUrl = "/audit-anchor"

const decodeChannel = decoder(
  "AuditAnchor.layerChannel",
  Schema.Struct({
    url: Schema.optionalWith(Text, { default: () => defaultUrl }),
    name: Schema.optionalWith(Text, { default: () => "audit" })
  })
)

/** No checkpoint is longer: ten certificates of 64 KiB in all, in base64. */
const maxBody = 128 * 1024

/**
 * Gives checkpoints to another workload, which serves {@link app}: two workloads can keep each other's. The channel needs an
 * audit log of its own, not the one that is anchored. `name` tells the logs of one workload apart; default `"audit"`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { AuditLog, SecureChannel } from "@agentweave/transport"
 * import { AuditAnchor, NodeAuditLog, NodeConnector } from "@agentweave/transport-node"
 * import { WorkloadApi } from "@agentweave/workload-api"
 * import { Effect, Layer } from "effect"
 *
 * const keeper = SecureChannel.make({ peer: "spiffe://example.org/keeper", baseUrl: "https://keeper.internal:8443" })
 * const Anchor = Layer.unwrapScoped(Effect.map(keeper, (channel) => AuditAnchor.layerChannel(channel))).pipe(
 *   Layer.provide(NodeConnector.layer),
 *   Layer.provide(AuditLog.layerLogger)
 * )
 * const Audit = NodeAuditLog.layerFile({ path: "/var/log/web/audit.ndjson" }).pipe(
 *   Layer.provide(Anchor),
 *   Layer.provide(WorkloadApi.layer())
 * )
 * ```
 */
export const layerChannel = (
  channel: SecureChannel,
  options: { readonly url?: string | undefined; readonly name?: string | undefined } = {}
): Layer.Layer<AuditAnchor, InvalidConfigError> =>
  Layer.effect(
    AuditAnchor,
    Effect.map(decodeChannel(options), ({ name, url }) => channelAt(channel, url, name))
  )

/** The anchor that another workload serves for one log of ours. */
const channelAt = (channel: SecureChannel, url: string, name: string): Context.Tag.Service<AuditAnchor> => {
  const target = `${url}?name=${encodeURIComponent(name)}`
  const failedThere = failed(`the peer to keep the checkpoints of ${name}`)
  return {
    store: (anchored) =>
      HttpClientRequest.post(target).pipe(
        HttpClientRequest.bodyUnsafeJson(anchored),
        channel.execute,
        Effect.flatMap(({ status }) =>
          status === 204 ? Effect.void : Effect.fail(new Error(`expected status 204, got ${status}`))
        ),
        Effect.mapError(failedThere)
      ),
    latest: channel.get(target).pipe(
      Effect.flatMap((response) => {
        if (response.status === 204) return Effect.succeed(Option.none<Anchored>())
        return response.status === 200
          ? Effect.map(Effect.flatMap(response.json, Schema.decodeUnknown(Anchored)), Option.some)
          : Effect.fail(new Error(`expected status 200 or 204, got ${response.status}`))
      }),
      Effect.mapError(failedThere)
    )
  }
}

const decodeApp = decoder("AuditAnchor.app", Schema.Struct({ directory: Text }))

/** A file name for the log of a caller, which no caller can make another's. */
const fileNameOf = (id: string, name: string): string => `${hash("sha256", `${id} ${name}`, "hex")}.ndjson`

/**
 * Serves an anchor to verified callers: each one's checkpoints are kept in a file of its own in the directory, and no caller
 * can read or write another's. `POST` keeps one; `GET` answers with the newest, or 204. Mount it where `layerChannel`
 * expects it, at `/audit-anchor`. The directory must exist. Options that break a rule fail every request with an
 * `InvalidConfigError`: no checkpoint is kept where nobody looks for it.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { AuditAnchor } from "@agentweave/transport-node"
 * import { HttpRouter } from "@effect/platform"
 *
 * const routes = HttpRouter.empty.pipe(
 *   HttpRouter.mountApp("/audit-anchor", AuditAnchor.app({ directory: "/var/lib/anchors" }), { includePrefix: true })
 * )
 * ```
 */
export const app = (options: { readonly directory: string }): HttpApp.Default<InvalidConfigError, PeerIdentity> =>
  Effect.flatMap(decodeApp(options), ({ directory }) => appAt(directory))

const appAt = (directory: string): HttpApp.Default<never, PeerIdentity> =>
  Effect.gen(function* () {
    const { spiffeId } = yield* caller
    const request = yield* HttpServerRequest.HttpServerRequest
    const name = new URL(request.url, "https://anchor").searchParams.get("name") ?? "audit"
    const file = fileAt(join(directory, fileNameOf(spiffeId, name)))
    if (request.method === "GET") {
      return Option.match(yield* file.latest, {
        onNone: () => HttpServerResponse.empty({ status: 204 }),
        onSome: (anchored) => HttpServerResponse.unsafeJson(anchored)
      })
    }
    if (request.method !== "POST") return HttpServerResponse.empty({ status: 405 })
    const text = yield* request.text
    if (text.length > maxBody) return HttpServerResponse.empty({ status: 413 })
    const anchored = Option.filter(decodeLine(text), ({ checkpoint }) => !checkpoint.includes("\n"))
    if (Option.isNone(anchored)) return HttpServerResponse.text("expected a checkpoint", { status: 400 })
    yield* file.store(anchored.value)
    return HttpServerResponse.empty({ status: 204 })
  }).pipe(
    Effect.catchAll((error) =>
      Effect.as(
        Effect.logError("a checkpoint of a peer could not be kept", error),
        HttpServerResponse.empty({ status: 500 })
      )
    )
  )
