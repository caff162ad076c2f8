/** Plain HTTP requests with headers of the test's choice, which neither `fetch` nor a browser would send. */
import { type IncomingHttpHeaders, type IncomingMessage, request } from "node:http"
import { request as secureRequest } from "node:https"
import { X509Svid } from "@agentweave/spiffe"
import { Deferred, Effect, Queue, Redacted } from "effect"

export interface Call {
  /** Default `127.0.0.1`. */
  readonly host?: string
  readonly port: number
  readonly path: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

const send = (
  { body, headers = {}, host = "127.0.0.1", method = "GET", path, port }: Call,
  onResponse: (from: IncomingMessage) => void
) => {
  const sent = request({ host, port, path, method, headers, agent: false }, onResponse)
  sent.on("error", () => {})
  sent.end(body)
  return sent
}

export const call = (options: Call): Effect.Effect<Answer, Error> =>
  Effect.async((resume) => {
    const sent = send(options, (response) => {
      const chunks: Array<Buffer> = []
      response.on("data", (chunk: Buffer) => chunks.push(chunk))
      response.on("end", () =>
        resume(
          Effect.succeed({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks).toString("utf8")
          })
        )
      )
    })
    sent.on("error", (error) => resume(Effect.fail(error)))
    return Effect.sync(() => sent.destroy())
  })

/** The status of `GET /api/snapshot` over TLS, with a certificate, a name in the handshake and a `Host` of the test's choice. */
export const httpsStatus = (options: {
  readonly svid: X509Svid.X509Svid
  readonly port: number
  readonly host: string
  readonly servername: string
}): Effect.Effect<number, Error> =>
  Effect.async((resume) => {
    const { host, port, servername, svid } = options
    const sent = secureRequest({
      host: "127.0.0.1",
      port,
      servername,
      path: "/api/snapshot",
      headers: { host },
      agent: false,
      cert: X509Svid.certificatesPem(svid),
      key: Redacted.value(X509Svid.privateKeyPem(svid)),
      // The server is not what is tested here, and its SVID has no name.
      rejectUnauthorized: false
    })
    sent.on("response", (response) => {
      response.resume()
      resume(Effect.succeed(response.statusCode ?? 0))
    })
    sent.on("error", (error) => resume(Effect.fail(error)))
    sent.end()
    return Effect.sync(() => sent.destroy())
  })

export interface EventStream {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** The data of the next event. */
  readonly next: Effect.Effect<string>
  /** Done when the server has ended it. */
  readonly ended: Effect.Effect<void>
  /** Gives it up. */
  readonly close: Effect.Effect<void>
}

/** Opens a stream of server-sent events, for the scope at most. */
export const openStream = (options: Omit<Call, "path"> & { readonly path?: string }) =>
  Effect.gen(function* () {
    const events = yield* Queue.unbounded<string>()
    const ended = yield* Deferred.make<void>()
    const opened = yield* Deferred.make<IncomingMessage>()
    let text = ""
    const sent = yield* Effect.acquireRelease(
      Effect.sync(() =>
        send({ path: "/api/events", ...options }, (response) => {
          Deferred.unsafeDone(opened, Effect.succeed(response))
          response.setEncoding("utf8")
          response.on("data", (chunk: string) => {
            text += chunk
            for (let end = text.indexOf("\n\n"); end !== -1; end = text.indexOf("\n\n")) {
              const block = text.slice(0, end)
              text = text.slice(end + 2)
              if (block.startsWith("data: ")) events.unsafeOffer(block.slice("data: ".length))
            }
          })
          response.on("error", () => {})
          response.on("close", () => Deferred.unsafeDone(ended, Effect.void))
        })
      ),
      (sent) => Effect.sync(() => sent.destroy())
    )
    const response = yield* Deferred.await(opened)
    const stream: EventStream = {
      status: response.statusCode ?? 0,
      headers: response.headers,
      next: Queue.take(events),
      ended: Deferred.await(ended),
      close: Effect.sync(() => sent.destroy())
    }
    return stream
  })
