import { Duplex } from "node:stream"
import type { TLSSocket } from "node:tls"

type Callback = (error?: Error | null) => void

/** How a socket is had: `onOpen` or `onFailure` is called, once. Returns what gives it up. */
export type Open = (onOpen: (socket: TLSSocket) => void, onFailure: (cause: Error) => void) => () => void

/**
 * A socket that is connected later, for libraries that want one at once. What is written before is sent when the peer is
 * verified, and never if it is not. It has the methods of Node's sockets that drivers call; where to connect to is not
 * theirs to say.
 */
export class LazySocket extends Duplex {
  connecting = true
  /** For drivers that look whether they are on TLS. */
  readonly encrypted = true
  private socket: TLSSocket | undefined = undefined
  private readonly waiting: Array<() => void> = []
  private giveUp: () => void = () => {}

  constructor(open: Open) {
    super({ allowHalfOpen: false, autoDestroy: true })
    this.giveUp = open(
      (socket) => this.onOpen(socket),
      (cause) => this.destroy(cause)
    )
  }

  private onOpen(socket: TLSSocket): void {
    if (this.destroyed) return
    this.socket = socket
    this.connecting = false
    socket.on("data", (chunk: Buffer) => {
      if (!this.push(chunk)) socket.pause()
    })
    socket.once("end", () => this.push(null))
    socket.once("error", (cause) => this.destroy(cause))
    socket.once("close", () => this.destroy())
    socket.on("timeout", () => this.emit("timeout"))
    for (const task of this.waiting.splice(0)) task()
    for (const event of ["connect", "secureConnect", "ready"]) this.emit(event)
  }

  private whenOpen(task: (socket: TLSSocket) => void): void {
    const { socket } = this
    if (socket !== undefined) task(socket)
    else this.waiting.push(() => this.whenOpen(task))
  }

  override _read(): void {
    this.socket?.resume()
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: Callback): void {
    this.whenOpen((socket) => void socket.write(chunk, callback))
  }

  override _final(callback: Callback): void {
    this.whenOpen((socket) => void socket.end(() => callback()))
  }

  override _destroy(error: Error | null, callback: Callback): void {
    this.connecting = false
    this.waiting.length = 0
    this.giveUp()
    callback(error)
  }

  /** The address a driver names here is ignored: it is that of the options, as is the peer. */
  connect(...args: ReadonlyArray<unknown>): this {
    const listener = args.at(-1)
    if (typeof listener !== "function") return this
    if (this.connecting) this.once("connect", () => Reflect.apply(listener, this, []))
    else queueMicrotask(() => Reflect.apply(listener, this, []))
    return this
  }

  setNoDelay(noDelay?: boolean): this {
    this.whenOpen((socket) => void socket.setNoDelay(noDelay))
    return this
  }

  setKeepAlive(enable?: boolean, initialDelay?: number): this {
    this.whenOpen((socket) => void socket.setKeepAlive(enable, initialDelay))
    return this
  }

  setTimeout(millis: number, listener?: () => void): this {
    if (listener !== undefined) this.once("timeout", listener)
    this.whenOpen((socket) => void socket.setTimeout(millis))
    return this
  }

  ref(): this {
    this.whenOpen((socket) => void socket.ref())
    return this
  }

  unref(): this {
    this.whenOpen((socket) => void socket.unref())
    return this
  }

  get remoteAddress(): string | undefined {
    return this.socket?.remoteAddress
  }

  get remotePort(): number | undefined {
    return this.socket?.remotePort
  }
}
