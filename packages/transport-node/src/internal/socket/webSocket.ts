import type { IncomingMessage } from "node:http"
import type { Duplex } from "node:stream"
import type { ConnectOptions } from "@agentweave/transport/Connector"
import { ConnectionError } from "@agentweave/transport/TransportError"
import * as Socket from "@effect/platform/Socket"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { type ClientOptions, WebSocket } from "ws"
import type { Opener } from "./opener.js"

type OnSocket = (error: Error | null, socket?: Duplex) => void

const elsewhere = (expected: string, actual: string): ConnectionError =>
  new ConnectionError({
    reason: "NoAddress",
    outcome: "NotSent",
    address: actual,
    description: `expected a WebSocket at ${expected}, the one origin that is connected to`
  })

/** The request target: path and query. */
const targetOf = (url: string): string => {
  if (!URL.canParse(url)) return ""
  const { pathname, search } = new URL(url)
  return pathname + search
}

const originOf = (url: string): string => (URL.canParse(url) ? new URL(url).origin : url)

/** Makes WebSockets whose connections are opened by `open`, whatever address or options `ws` finds in their URL. */
export const constructorOver =
  (open: Opener, to: ConnectOptions, origin: string): typeof Socket.WebSocketConstructor.Service =>
  (url, protocols) => {
    const actual = originOf(url)
    const target = actual === origin ? Effect.succeed(to) : Effect.fail(elsewhere(origin, actual))
    let giveUp = () => {}
    /** Of the answer to the opening handshake. */
    let status: number | undefined
    const createConnection = (_: unknown, onSocket: OnSocket): undefined => {
      giveUp = open(
        target,
        ({ connection, socket }) => {
          const unrecorded = connection.unsafeRequestStarted({
            method: "GET",
            target: targetOf(url),
            end: () => ({ status })
          })
          if (unrecorded !== undefined) {
            onSocket(unrecorded)
            connection.unsafeAbort()
            return
          }
          // A lost connection is a close event with code 1006 to `ws` (8.23) and nothing else.
          connection.onEnded((error) => {
            if (error !== undefined && webSocket.listenerCount("error") > 0) webSocket.emit("error", error)
          })
          onSocket(null, socket)
        },
        onSocket
      )
    }
    const webSocket = new WebSocket(url, protocols, {
      handshakeTimeout: Duration.toMillis(to.config.timeout),
      perMessageDeflate: false,
      finishRequest: (request) => {
        const answered = ({ statusCode }: IncomingMessage) => {
          status = statusCode
        }
        request.prependListener("upgrade", answered).prependListener("response", answered)
        request.end()
      },
      // The types of `ws` do not know that `http.request` takes one that calls back.
      createConnection: createConnection as unknown as NonNullable<ClientOptions["createConnection"]>
    })
    webSocket.once("close", () => giveUp())
    // As @effect/platform-node has it: what the platform uses of a WebSocket is the same in both.
    return webSocket as unknown as globalThis.WebSocket
  }

/** The error of an error event of `ws`, in place of the event. */
const causeOf = (cause: unknown): unknown =>
  typeof cause === "object" && cause !== null && "error" in cause && cause.error instanceof Error ? cause.error : cause

const unwrap = <E>(error: E): E | Socket.SocketError =>
  error instanceof Socket.SocketGenericError
    ? new Socket.SocketGenericError({ reason: error.reason, cause: causeOf(error.cause) })
    : error

/** A WebSocket whose errors have the typed error as their cause. */
export const unwrapped = (socket: Socket.Socket): Socket.Socket => ({
  ...socket,
  run: (handler, options) => Effect.mapError(socket.run(handler, options), unwrap),
  runRaw: (handler, options) => Effect.mapError(socket.runRaw(handler, options), unwrap)
})
