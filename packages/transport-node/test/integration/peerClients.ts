/** Four HTTP clients that speak to the same raw TLS server, and what each of them sends and reports. */
import { request as httpsRequest } from "node:https"
import { Readable } from "node:stream"
import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as SecureChannel from "@agentweave/transport/SecureChannel"
import * as Headers from "@effect/platform/Headers"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpMethod } from "@effect/platform/HttpMethod"
import { Cause, Effect, Exit, Redacted, type Scope } from "effect"
import * as undici from "undici"
import { host, hostileServer, startClient } from "./fixture.js"

/** A request as data: every client makes of it what its own API takes. */
export interface Ask {
  readonly method?: HttpMethod
  /** From the origin on. */
  readonly path?: string
  readonly headers?: Record<string, string>
  /** Made anew for each client: a stream can be sent once. */
  readonly body?: () => unknown
  /** For ours, where it has a form of its own for the body. */
  readonly httpBody?: () => HttpBody.HttpBody
}

export interface Sent {
  /** The request line without its version. */
  readonly line: string
  readonly headers: Record<string, string>
  readonly body: string
}

export interface Received {
  readonly status: number
  readonly headers: Record<string, string>
  readonly body: string
}

/** What a client reports: a response, or that there is none. */
export type Report = Received | "failed"

export interface Result {
  readonly sent: Sent | undefined
  readonly report: Report
  /** The error, of ours. */
  readonly error?: unknown
}

export const clients = ["ours", "undici", "https", "fetch"] as const
export type Client = (typeof clients)[number]

const headEnd = "\r\n\r\n"

/** The whole of a request, or `undefined` while it is not whole. */
const parseSent = (text: string): Sent | undefined => {
  const end = text.indexOf(headEnd)
  if (end < 0) return undefined
  const [first = "", ...lines] = text.slice(0, end).split("\r\n")
  const headers: Record<string, string> = {}
  for (const line of lines) {
    const colon = line.indexOf(":")
    const name = line.slice(0, colon).toLowerCase()
    const value = line.slice(colon + 1).trim()
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value
  }
  const sent = (body: string): Sent => ({ line: first.replace(/ HTTP\/1\.1$/, ""), headers, body })
  const rest = text.slice(end + headEnd.length)
  if (headers["transfer-encoding"] === undefined) {
    const length = Number(headers["content-length"] ?? 0)
    return rest.length < length ? undefined : sent(rest)
  }
  let body = ""
  for (let at = 0; ; ) {
    const lineEnd = rest.indexOf("\r\n", at)
    if (lineEnd < 0) return undefined
    const size = Number.parseInt(rest.slice(at, lineEnd), 16)
    if (size === 0) return rest.endsWith("0\r\n\r\n") ? sent(body) : undefined
    body += rest.slice(lineEnd + 2, lineEnd + 2 + size)
    at = lineEnd + 2 + size + 2
    if (at > rest.length) return undefined
  }
}

const record = (headers: Iterable<readonly [string, unknown]>): Record<string, string> =>
  Object.fromEntries(Array.from(headers, ([name, value]) => [name.toLowerCase(), String(value)]))

const latin1 = (bytes: ArrayBuffer | Uint8Array): string => Buffer.from(bytes as ArrayBuffer).toString("latin1")

const readAll = async (body: Readable): Promise<string> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of body) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString("latin1")
}

/** The undici package has its own class of forms. */
const formOf = (body: unknown): unknown => {
  if (!(body instanceof FormData)) return body
  const form = new undici.FormData()
  for (const [name, value] of body.entries()) form.append(name, value as string)
  return form
}

export interface Bench {
  /** Runs the request with one client, against a server that answers with these bytes and then ends the connection. */
  readonly run: (client: Client, ask: Ask, answer: string) => Effect.Effect<Result>
  readonly channel: SecureChannel.SecureChannel
}

export const makeBench: Effect.Effect<Bench, unknown, Scope.Scope> = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  let answer = ""
  let sent: Sent | undefined
  let received = ""
  const server = yield* hostileServer(yield* authority.issueRaw({ path: "/raw" }), {
    // A client that states more than it sends, and then waits for the response, is not waited for.
    onSecure: (socket) => socket.setTimeout(1_000, () => socket.destroy()),
    onRequest: (socket, bytes) => {
      received += bytes.toString("latin1")
      if (sent !== undefined) return
      sent = parseSent(received)
      if (sent !== undefined) socket.end(answer, "latin1")
    }
  })
  const client = yield* startClient(yield* authority.context({ path: "/client" }))
  const channel = yield* client.channel({
    port: server.port,
    peer: authority.id("/raw"),
    config: { connections: 4, timeout: "20 seconds" }
  })
  const own = yield* authority.issueRaw({ path: "/client" })
  const tlsOptions = {
    cert: own.certificatesPem,
    key: Redacted.value(own.privateKeyPem),
    ca: X509Bundle.toPem(authority.bundle),
    checkServerIdentity: () => undefined
  }
  const agent = yield* Effect.acquireRelease(
    Effect.sync(() => new undici.Agent({ connect: tlsOptions })),
    (agent) => Effect.promise(() => agent.destroy())
  )
  const origin = `https://${host}:${server.port}`

  const ours = async (ask: Ask): Promise<readonly [Report, unknown?]> => {
    const raw = ask.body?.()
    const body = ask.httpBody?.() ?? (raw === undefined ? undefined : HttpBody.raw(raw))
    let request = HttpClientRequest.make(ask.method ?? "GET")(ask.path ?? "/", {
      headers: Headers.fromInput(ask.headers ?? {})
    })
    if (body !== undefined) request = HttpClientRequest.setBody(request, body)
    const exit = await Effect.runPromiseExit(
      Effect.flatMap(channel.execute(request), (response) =>
        Effect.map(
          response.arrayBuffer,
          (body): Received => ({
            status: response.status,
            headers: record(Object.entries(response.headers)),
            body: latin1(body)
          })
        )
      )
    )
    return Exit.isSuccess(exit) ? [exit.value] : ["failed", Cause.squash(exit.cause)]
  }

  const viaUndici = async (ask: Ask): Promise<Report> => {
    const response = await agent.request({
      origin,
      path: ask.path ?? "/",
      method: (ask.method ?? "GET") as undici.Dispatcher.HttpMethod,
      headers: ask.headers ?? {},
      body: (ask.body?.() ?? null) as never
    })
    return {
      status: response.statusCode,
      headers: record(Object.entries(response.headers)),
      body: latin1(await response.body.arrayBuffer())
    }
  }

  const viaHttps = (ask: Ask): Promise<Report> =>
    new Promise((resolve, reject) => {
      const request = httpsRequest(`${origin}/`, {
        ...tlsOptions,
        path: ask.path ?? "/",
        method: ask.method ?? "GET",
        headers: ask.headers ?? {},
        agent: false
      })
      request.on("response", (response) => {
        readAll(response).then(
          (body) =>
            resolve({ status: response.statusCode ?? 0, headers: record(Object.entries(response.headers)), body }),
          reject
        )
      })
      request.on("upgrade", (_response, socket) => {
        socket.destroy()
        reject(new Error("upgraded"))
      })
      request.on("error", reject)
      const body = ask.body?.()
      if (body instanceof Readable) body.pipe(request)
      else request.end(body as never)
    })

  const viaFetch = async (ask: Ask): Promise<Report> => {
    const response = await undici.fetch(`${origin}${ask.path ?? "/"}`, {
      method: ask.method ?? "GET",
      headers: ask.headers ?? {},
      dispatcher: agent,
      redirect: "manual",
      duplex: "half",
      ...(ask.body === undefined ? undefined : { body: formOf(ask.body()) as never })
    })
    return { status: response.status, headers: record(response.headers), body: latin1(await response.arrayBuffer()) }
  }

  const others = { undici: viaUndici, https: viaHttps, fetch: viaFetch }
  const run: Bench["run"] = (client, ask, bytes) =>
    Effect.promise(async () => {
      answer = bytes
      sent = undefined
      received = ""
      if (client === "ours") {
        const [report, error] = await ours(ask)
        return { sent, report, error }
      }
      const report = await others[client](ask).catch((): Report => "failed")
      return { sent, report }
    })
  return { run, channel }
})
