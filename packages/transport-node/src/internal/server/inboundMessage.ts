import { IncomingMessage } from "node:http"
import type { Socket } from "node:net"
import type { AcceptedConnection } from "@agentweave/transport/Acceptor"

const isToken = (text: string): boolean => /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(text)

/** RFC 6455 section 11.3.4: a list of tokens, none of them twice. */
const areSubprotocols = (header: string): boolean => {
  const names = header.split(",").map((name) => name.trim())
  return names.every(isToken) && new Set(names).size === names.length
}

/**
 * Whether a request is the opening handshake of a WebSocket (RFC 6455 section 4.2.1), as strict as the library that
 * answers it: what that would refuse is an ordinary request. A body has no place in a handshake.
 */
const isWebSocketHandshake = ({ headers, method }: IncomingMessage): boolean =>
  method === "GET" &&
  headers.upgrade?.toLowerCase() === "websocket" &&
  /^[+/0-9A-Za-z]{22}==$/.test(headers["sec-websocket-key"] ?? "") &&
  /^(?:8|13)$/.test(headers["sec-websocket-version"] ?? "") &&
  areSubprotocols(headers["sec-websocket-protocol"] ?? "none") &&
  headers["transfer-encoding"] === undefined &&
  Number(headers["content-length"] ?? 0) === 0

/** The connection that a body comes on. */
interface BodyCarrier {
  /** The rest of a body that is still to come will be discarded. */
  readonly onBodyGivenUp: () => void
  /** The connection's supervision and peer; absent before the peer is verified. */
  readonly accepted: Pick<AcceptedConnection, "peer"> | undefined
}

/**
 * A request as Node's parser hands it over. Node (20 to 26) takes a connection away from HTTP for any `Upgrade` and asks
 * `upgrade` of the message whether it shall. A server may ignore an `Upgrade` (RFC 9110 section 7.8), and nothing but a
 * WebSocket can be made of one here, so that every other is a request like any other, with its body.
 */
export class InboundMessage extends IncomingMessage {
  declare upgradeAsked: boolean | null
  /** The request has an `Upgrade`, used or not: Node sets `upgrade` to false again where nobody listens for one. */
  declare hadUpgrade: boolean | undefined

  get upgrade(): boolean {
    return this.upgradeAsked === true && (this.method === "CONNECT" || isWebSocketHandshake(this))
  }

  /** Called when the body is given up. */
  declare carrier: BodyCarrier | undefined
  /** The reader of the body wanted no more of it. */
  declare isGivenUp: boolean | undefined

  set upgrade(asked: boolean | null) {
    if (asked === true) this.hadUpgrade = true
    this.upgradeAsked = asked
  }

  /**
   * A reader that stops (it has met its limit, or failed) destroys the body, and Node the connection with it, so that no
   * answer would reach the client. The rest of the body is discarded instead.
   */
  override destroy(error?: Error): this {
    if (error !== undefined || this.readableEnded || this.socket.destroyed) return super.destroy(error)
    if (this.isGivenUp === true) return this
    this.isGivenUp = true
    this.removeAllListeners("data").removeAllListeners("readable").resume()
    if (!this.complete) this.carrier?.onBodyGivenUp()
    return this
  }
}

const { destroy } = InboundMessage.prototype

/** A request for frameworks that give requests a prototype of their own, as Express does: it is given up as any other. */
export class PinnedMessage extends InboundMessage {
  constructor(socket: Socket) {
    super(socket)
    Object.assign(this, { destroy })
  }
}
