/** HTTP clients without Effect, each over ten connections of its own to one server. */
import { Agent as HttpsAgent, request as httpsRequest } from "node:https"
import { type Dispatcher, Pool } from "undici"
import type { Environment } from "../harness/Benchmark.js"
import { tlsOptions } from "../harness/tls.js"

export const connections = 10

/** One request, as every client makes it in its own way. */
export interface Call {
  readonly method: "GET" | "POST"
  readonly path: string
  /** Of a POST. */
  readonly body: string
}

/** A client that answers with the parsed JSON of a response. */
export interface Json {
  readonly request: (call: Call) => Promise<unknown>
  readonly stop: () => Promise<void>
}

export const originOf = ({ ports }: Environment, server: string): string => `https://127.0.0.1:${ports[server]}`

/** How undici connects: the chain is verified; a name is not what a SPIFFE ID is about. */
export const connectOptions = ({ credentials }: Environment) => ({
  ...tlsOptions(credentials, credentials.client),
  rejectUnauthorized: true,
  checkServerIdentity: () => undefined
})

export const undiciPool = (environment: Environment, server: string): Pool =>
  new Pool(originOf(environment, server), { connections, pipelining: 1, connect: connectOptions(environment) })

const headers = { "content-type": "application/json" }

const undiciOptions = ({ body, method, path }: Call): Dispatcher.RequestOptions & Dispatcher.DispatchOptions =>
  method === "POST" ? { method, path, headers, body } : { method, path }

export const viaRequest = (environment: Environment, server: string): Json => {
  const pool = undiciPool(environment, server)
  return {
    request: async (call) => {
      const { body, statusCode } = await pool.request(undiciOptions(call))
      if (statusCode !== 200) throw new Error(`status ${statusCode}`)
      return body.json()
    },
    stop: () => pool.destroy()
  }
}

export const viaDispatch = (environment: Environment, server: string): Json => {
  const pool = undiciPool(environment, server)
  return {
    request: (call) =>
      new Promise((resolve, reject) => {
        const chunks: Array<Buffer> = []
        pool.dispatch(undiciOptions(call), {
          onConnect: () => {},
          onHeaders: (status) => {
            if (status !== 200) reject(new Error(`status ${status}`))
            return true
          },
          onData: (chunk) => {
            chunks.push(chunk)
            return true
          },
          onComplete: () => {
            const [only] = chunks
            resolve(JSON.parse((chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks)).toString()))
          },
          onError: reject
        })
      }),
    stop: () => pool.destroy()
  }
}

export const viaHttpsAgent = (environment: Environment, server: string): Json => {
  const agent = new HttpsAgent({
    ...tlsOptions(environment.credentials, environment.credentials.client),
    keepAlive: true,
    maxSockets: connections,
    checkServerIdentity: () => undefined
  })
  return {
    request: ({ body, method, path }) =>
      new Promise((resolve, reject) => {
        const request = httpsRequest(
          {
            host: "127.0.0.1",
            port: environment.ports[server],
            agent,
            method,
            path,
            ...(method === "POST" ? { headers: { ...headers, "content-length": body.length } } : undefined)
          },
          (response) => {
            if (response.statusCode !== 200) reject(new Error(`status ${response.statusCode}`))
            const chunks: Array<Buffer> = []
            response.on("data", (chunk: Buffer) => chunks.push(chunk))
            response.on("end", () => resolve(JSON.parse(Buffer.concat(chunks).toString())))
            response.on("error", reject)
          }
        )
        request.on("error", reject)
        request.end(method === "POST" ? body : undefined)
      }),
    stop: async () => agent.destroy()
  }
}
