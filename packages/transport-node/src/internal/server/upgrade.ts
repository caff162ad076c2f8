import type { Socket } from "node:net"
import type { Answer } from "./answer.js"

/**
 * The answer to a WebSocket's opening handshake, read from the status line that is written to the socket: `101` is not
 * written by Node's response object, and what is comes from one that the platform keeps to itself. It is sent to its end
 * when the socket was ended in order.
 */
export class UpgradeAnswer implements Answer {
  private readonly socket: Socket
  private status: number | undefined = undefined

  /** `onStatus` is called once, with the status. */
  constructor(socket: Socket, onStatus: (status: number) => void) {
    this.socket = socket
    const { write } = socket
    socket.write = (chunk: unknown, ...rest: ReadonlyArray<unknown>) => {
      const [, status] = /^HTTP\/1\.1 ([2-9]\d\d|101) /.exec(String(chunk)) ?? []
      if (status !== undefined) {
        this.status = Number(status)
        Reflect.deleteProperty(socket, "write")
        onStatus(this.status)
      }
      return Reflect.apply(write, socket, [chunk, ...rest])
    }
  }

  get headersSent(): boolean {
    return this.status !== undefined
  }

  get statusCode(): number {
    return this.status ?? 0
  }

  get isWhole(): boolean {
    return this.headersSent && this.socket.writableFinished
  }
}
