import type { IncomingMessage, RequestListener } from "node:http"
import { createServer } from "node:https"
import type { TLSSocket } from "node:tls"
import type { Environment, ServerSubject } from "../harness/Benchmark.js"
import type { Credentials, Identity } from "../harness/credentials.js"
import { peerOf, tlsOptions } from "../harness/tls.js"
import { listen } from "./listen.js"

/** What every small JSON response of the benchmarks holds. */
export const small = {
  id: 42,
  name: "a small thing",
  tags: ["one", "two", "three"],
  price: { amount: 12.5, unit: "EUR" }
}

export const smallText = JSON.stringify(small)

const smallBytes = Buffer.from(smallText)

const read = (request: IncomingMessage, done: (size: number) => void): void => {
  let size = 0
  request.on("data", (chunk: Buffer) => {
    size += chunk.length
  })
  request.on("end", () => done(size))
}

const megabyte = Buffer.alloc(1024 * 1024, "abcdefghijklmnopqrstuvwxyz")

/**
 * `GET /json`, `POST /json` (answers with how much it got), `GET /who` (the caller's SPIFFE ID), `GET /bytes/N` (as many
 * MiB), `POST /bytes`.
 */
const answer: RequestListener = (request, response) => {
  const send = (body: Buffer) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": body.length })
    response.end(body)
  }
  if (request.method === "POST") return read(request, (size) => send(Buffer.from(JSON.stringify({ ...small, size }))))
  const { url = "" } = request
  if (url === "/who") return send(Buffer.from(JSON.stringify({ caller: peerOf(request.socket as TLSSocket) })))
  if (!url.startsWith("/bytes/")) return send(smallBytes)
  let left = Number(url.slice("/bytes/".length))
  response.writeHead(200, { "content-type": "application/octet-stream", "content-length": left * megabyte.length })
  const write = (): void => {
    while (left > 0) {
      left--
      if (left === 0) response.end(megabyte)
      else if (!response.write(megabyte)) {
        response.once("drain", write)
        return
      }
    }
  }
  write()
}

const serve = (credentials: Credentials, identity: Identity, listener: RequestListener) =>
  listen(
    createServer(
      {
        ...tlsOptions(credentials, identity),
        requestCert: true,
        rejectUnauthorized: true,
        keepAliveTimeout: 60_000,
        noDelay: true
      },
      listener
    )
  )

/** Bare `node:https` that asks for a client certificate. */
export const plainServer: ServerSubject = {
  start: ({ credentials }: Omit<Environment, "ports">) => serve(credentials, credentials.server, answer)
}

/** The same for each peer, under its own identity. The one that is found answers with the ports of the others. */
export const peerServers: ServerSubject = {
  start: async ({ credentials }: Omit<Environment, "ports">) => {
    const ports: Array<number> = []
    for (const peer of credentials.peers) ports.push((await serve(credentials, peer, answer)).port)
    return serve(credentials, credentials.server, (_request, response) => response.end(JSON.stringify(ports)))
  }
}
