/**
 * TCP sockets as Effects: the one place of the proxy where callbacks enter.
 */
import * as net from "node:net"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"

/** An event of a socket: bytes, its orderly end, or its close (for whatever reason; also after an end). */
export type Event = Uint8Array | "End" | "Close"

export interface Inbox {
  readonly socket: net.Socket
  /** The next event. The socket reads no further until the one before has been taken care of and this is asked again. */
  readonly next: Effect.Effect<Event>
}

export const inbox = (socket: net.Socket): Effect.Effect<Inbox> =>
  Effect.map(Queue.unbounded<Event>(), (queue) => {
    socket.on("data", (bytes) => {
      socket.pause()
      queue.unsafeOffer(bytes)
    })
    socket.on("end", () => queue.unsafeOffer("End"))
    // The close that follows says all there is to know.
    socket.on("error", () => {})
    socket.on("close", () => queue.unsafeOffer("Close"))
    if (socket.destroyed) queue.unsafeOffer("Close")
    socket.setNoDelay(true)
    return {
      socket,
      next: Effect.suspend(() => {
        socket.resume()
        return Queue.take(queue)
      })
    }
  })

/** Resolves when the bytes have left for the kernel, or never can. */
export const write = (socket: net.Socket, bytes: Uint8Array): Effect.Effect<void> =>
  bytes.length === 0
    ? Effect.void
    : Effect.async((resume) => {
        socket.write(bytes, () => resume(Effect.void))
      })

/** Sends FIN once everything written has left. Resolves when it is sent, or never can be. */
export const end = (socket: net.Socket): Effect.Effect<void> =>
  Effect.async((resume) => {
    socket.end(() => resume(Effect.void))
  })

/** A connection, or `undefined` where none can be made. */
export const connect = (host: string, port: number): Effect.Effect<net.Socket | undefined> =>
  Effect.async((resume) => {
    const socket = net.connect({ host, port, allowHalfOpen: true })
    socket.once("connect", () => resume(Effect.succeed(socket)))
    socket.once("error", () => resume(Effect.succeed(undefined)))
    return Effect.sync(() => {
      socket.destroy()
    })
  })

export interface Listener {
  readonly port: number
  /** Closes the listening socket; accepted connections live on. */
  readonly close: Effect.Effect<void>
}

/** Listens on 127.0.0.1; port 0 picks a free one. A port that cannot be had is a defect. */
export const listen = (port: number, onConnection: (socket: net.Socket) => void): Effect.Effect<Listener> =>
  Effect.async((resume) => {
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, onConnection)
    server.once("error", (error) => resume(Effect.die(error)))
    server.listen({ host: "127.0.0.1", port }, () => {
      const address = server.address()
      resume(
        Effect.succeed({
          port: typeof address === "object" && address !== null ? address.port : port,
          close: Effect.sync(() => {
            server.close()
          })
        })
      )
    })
  })
