/**
 * A verified request to a server, step by step. The program behind `agentweave probe`.
 *
 * @since 0.1.0
 */
import { type AuditEvent, AuditLog, SecureChannel } from "@agentweave/transport"
import { addressOf } from "@agentweave/transport/Wire"
import { NodeConnector } from "@agentweave/transport-node"
import type { Duration } from "effect"
import { Effect, Either, Layer, Stream } from "effect"
import { parseAddress } from "./internal/address.js"
import * as identity from "./internal/identity.js"
import { printable } from "./internal/printable.js"
import { errorJson, type Report } from "./internal/report.js"

/**
 * Where the request goes, and as whom.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** `HOST:PORT`. */
  readonly address: string
  /** The SPIFFE ID that must be there. */
  readonly expect: string
  /** The path to `GET`. Default `/`. */
  readonly path?: string | undefined
  /** Limit for the connection, and for the response's headers. Default 10 seconds. */
  readonly timeout?: Duration.DurationInput | undefined
  /** Our own identity in files: all three, or none. */
  readonly cert?: string | undefined
  readonly key?: string | undefined
  readonly bundle?: string | undefined
  /** The Workload API that has our identity. Default: what `SPIFFE_ENDPOINT_SOCKET` says. */
  readonly endpoint?: string | undefined
}

const find = <Tag extends AuditEvent.AuditEvent["_tag"]>(events: ReadonlyArray<AuditEvent.AuditEvent>, tag: Tag) =>
  events.find((event): event is Extract<AuditEvent.AuditEvent, { readonly _tag: Tag }> => event._tag === tag)

const lines = (events: ReadonlyArray<AuditEvent.AuditEvent>): ReadonlyArray<string> => {
  const refused = find(events, "ConnectionRefused")
  const established = find(events, "ConnectionEstablished")
  const ended = find(events, "RequestEnded")
  return [
    ...(refused === undefined
      ? []
      : [`refused after ${refused.durationMillis} ms: ${refused.error} ${refused.reason}: ${refused.description}`]),
    ...(established === undefined
      ? []
      : [
          `handshake  ${established.durationMillis} ms with ${established.address}, ${established.tlsVersion}, ${established.cipher}`,
          `peer       ${established.peerId}, serial ${established.peerSerialNumber}, SHA-256 ${established.peerFingerprint.slice(0, 16)}`,
          `we are     ${established.ownId}, serial ${established.ownSerialNumber}`
        ]),
    ...(ended === undefined
      ? []
      : [
          `request    ${ended.method} ${ended.path}: ${ended.status ?? ended.error ?? "no status"} after ${ended.durationMillis} ms`
        ])
  ]
}

/**
 * Opens one connection, verifies who is there, and asks for `path` once. The exit code is 0 for every response of a verified
 * peer, whatever its status, and 1 where there is none.
 *
 * @since 0.1.0
 * @category programs
 */
export const run = Effect.fnUntraced(function* (options: Options) {
  const { host, port } = yield* parseAddress(options.address)
  const { expect, path = "/", timeout = "10 seconds" } = options
  const ours = yield* Layer.build(identity.layer(options))
  const events: Array<AuditEvent.AuditEvent> = []
  const services = NodeConnector.layer.pipe(
    Layer.provide(Layer.succeedContext(ours)),
    Layer.provide(AuditLog.layerMemory(events))
  )
  const attempt = yield* Effect.gen(function* () {
    const channel = yield* SecureChannel.make({
      peer: expect,
      baseUrl: `https://${addressOf(host, port)}`,
      config: { timeout, connectTimeout: timeout }
    })
    const response = yield* channel.get(path)
    const bytes = yield* Stream.runFold(response.stream, 0, (sum, piece) => sum + piece.length)
    return { status: response.status, bytes }
  }).pipe(Effect.scoped, Effect.provide(Layer.merge(services, Layer.succeedContext(ours))), Effect.either)
  const established = find(events, "ConnectionEstablished")
  const refused = find(events, "ConnectionRefused")
  const ended = find(events, "RequestEnded")
  const error = Either.isLeft(attempt) ? attempt.left : undefined
  return {
    exitCode: error === undefined ? 0 : 1,
    text: [...lines(events), ...(error === undefined ? [] : [`${error._tag}: ${error.message}`])]
      .map(printable)
      .join("\n"),
    json: {
      address: options.address,
      expectedId: expect,
      accepted: established !== undefined,
      ...(established === undefined ? undefined : { connection: established }),
      ...(refused === undefined ? undefined : { refused }),
      ...(Either.isLeft(attempt)
        ? undefined
        : { response: { ...attempt.right, durationMillis: ended?.durationMillis } }),
      ...(error === undefined ? undefined : { error: errorJson(error) })
    }
  } satisfies Report
}, Effect.scoped)
