/** The same routes as apps of several frameworks, for the tests of request listeners. Each answers as its framework does. */
import type { IncomingMessage, RequestListener } from "node:http"
import { Readable } from "node:stream"
import * as NodeSecureServer from "@agentweave/transport-node/NodeSecureServer"
import { getRequestListener, type HttpBindings } from "@hono/node-server"
import { Option } from "effect"
import express from "express"
import Fastify from "fastify"
import { Hono } from "hono"

const callerOf = (request: IncomingMessage): string =>
  Option.match(NodeSecureServer.callerOf(request), { onNone: () => "nobody", onSome: ({ spiffeId }) => spiffeId })

/**
 * - `GET /whoami`: the caller.
 * - `POST /echo`: the JSON that came.
 * - `GET /short`: three bytes, where the head says ten.
 * - `GET /fails`: an error that is thrown.
 */
const plain: RequestListener = (request, response) => {
  switch (request.url) {
    case "/whoami":
      response.end(callerOf(request))
      return
    case "/echo":
      request.pipe(response)
      return
    case "/short":
      response.setHeader("content-length", 10)
      response.end("abc")
      return
    default:
      response.statusCode = 500
      response.end()
  }
}

const failing = (): never => {
  throw new Error("a handler that fails")
}

const expressApp = (): RequestListener => {
  const app = express()
  // Its own handler of errors writes to the console.
  app.set("env", "test")
  app.use(express.json())
  app.get("/whoami", (request, response) => {
    response.send(callerOf(request))
  })
  app.post("/echo", (request, response) => {
    response.json(request.body)
  })
  app.get("/short", (_, response) => {
    response.set("content-length", "10").write("abc")
    response.end()
  })
  app.get("/fails", failing)
  return app
}

/** Middleware such as `compression` puts its own `write` and `end` on a response. */
const expressWithMiddleware = (): RequestListener => {
  const app = express()
  app.use((_, response, next) => {
    const { end, write } = response
    response.write = (...args: ReadonlyArray<unknown>) => Reflect.apply(write, response, args)
    response.end = (...args: ReadonlyArray<unknown>) => Reflect.apply(end, response, args)
    next()
  })
  app.use(expressApp())
  return app
}

const fastify = async (): Promise<RequestListener> => {
  const app = Fastify()
  app.get("/whoami", async ({ raw }) => callerOf(raw))
  app.post("/echo", async ({ body }) => body)
  app.get("/short", (_, reply) => reply.header("content-length", "10").send(Readable.from(["abc"])))
  app.get("/fails", failing)
  await app.ready()
  return (request, response) => app.routing(request, response)
}

const hono = (): RequestListener => {
  const app = new Hono<{ Bindings: HttpBindings }>()
  app.get("/whoami", (context) => context.text(callerOf(context.env.incoming)))
  app.post("/echo", async (context) => context.json(await context.req.json()))
  app.get("/short", (context) => context.body(new Blob(["abc"]).stream(), 200, { "content-length": "10" }))
  app.get("/fails", failing)
  app.onError((_, context) => context.text("", 500))
  return getRequestListener(app.fetch, { overrideGlobalObjects: false })
}

export const frameworks: Readonly<Record<string, () => RequestListener | Promise<RequestListener>>> = {
  "node:http": () => plain,
  Express: expressApp,
  "Express with middleware of its responses": expressWithMiddleware,
  Fastify: fastify,
  Hono: hono
}
