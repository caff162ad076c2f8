import type { TLSSocket } from "node:tls"
import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import { Effect } from "effect"
import { hostileServer, realTime, startClient } from "./fixture.js"

export const mebibyte = 1024 * 1024
export const large = Buffer.alloc(mebibyte, "large")
const chunk = Buffer.concat([Buffer.from("100000\r\n"), large, Buffer.from("\r\n")])
export const head = (length: number) => `HTTP/1.1 200 OK\r\ncontent-length: ${length}\r\n\r\n`

/** Answers by path: `/small`, `/large` (1 MiB), `/endless` (chunks, as long as they are read), others as the script says. */
export const setup = Effect.fnUntraced(function* (
  config: TransportConfig.Options = {},
  script: (socket: TLSSocket) => void = () => {}
) {
  yield* realTime
  let sent = 0
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const server = yield* hostileServer(yield* authority.issueRaw({ path: "/raw", ttl: "10 days" }), {
    onRequest: (socket, bytes) => {
      if (bytes.includes(" /small ")) socket.write(`${head(5)}small`)
      else if (bytes.includes(" /large ")) {
        socket.write(head(mebibyte))
        socket.write(large)
      } else if (bytes.includes(" /endless ")) {
        socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        const more = () => {
          do sent += chunk.length
          while (socket.write(chunk))
        }
        socket.on("drain", more)
        more()
      } else script(socket)
    }
  })
  const client = yield* startClient(yield* authority.context({ path: "/client", ttl: "10 days" }))
  const channel = yield* client.channel({
    port: server.port,
    peer: authority.id("/raw"),
    config: { connections: 1, ...config }
  })
  const small = Effect.flatMap(channel.get("/small"), (response) => response.text)
  return { channel, client, server, small, sent: () => sent }
})
