import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import type * as TransportConfig from "@agentweave/transport/TransportConfig"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { execute } from "./execute.js"
import { failure, hostileServer, realTime, startClient } from "./fixture.js"

const versions: ReadonlyArray<TransportConfig.TlsVersion> = ["TLSv1.2", "TLSv1.3"]

const setUp = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  return {
    client: yield* startClient(yield* authority.context({ path: "/client" })),
    credentials: yield* authority.issueRaw({ path: "/server" }),
    serverId: authority.id("/server")
  }
})

describe("a server that does not ask for a client certificate", () => {
  for (const version of versions) {
    const config = { tlsMinVersion: version, tlsMaxVersion: version }

    it.scoped(`is refused before a byte of a request, though its own certificate is right, ${version}`, () =>
      Effect.gen(function* () {
        const { client, credentials, serverId } = yield* setUp
        const server = yield* hostileServer(credentials, { requestCert: false })
        const error = yield* failure(client.connect({ port: server.port, peer: serverId, config }))
        expect(error).toMatchObject({
          _tag: "PeerVerificationError",
          reason: "NotMutual",
          description: expect.stringContaining("expected to be asked for our certificate"),
          isRetryable: false
        })
        yield* server.idle
        expect(server.bytes()).toBe(0)
        expect(client.log.connections()).toEqual(["ConnectionAttempted", "ConnectionRefused"])
        expect(client.log.all("ConnectionRefused")).toMatchObject([
          { error: "PeerVerificationError", reason: "NotMutual" }
        ])
      })
    )

    it.scoped(`is refused also when the same server asked before, ${version}`, () =>
      Effect.gen(function* () {
        const { client, credentials, serverId } = yield* setUp
        const asks = yield* hostileServer(credentials)
        const connection = yield* client.connect({ port: asks.port, peer: serverId, config })
        expect((yield* execute(connection, HttpClientRequest.get("/"))).status).toBe(200)
        const server = yield* hostileServer(credentials, { requestCert: false })
        expect(yield* failure(client.connect({ port: server.port, peer: serverId, config }))).toMatchObject({
          reason: "NotMutual"
        })
      })
    )
  }

  it.scoped("is refused once, and not tried again by a channel that retries", () =>
    Effect.gen(function* () {
      const { client, credentials, serverId } = yield* setUp
      const server = yield* hostileServer(credentials, { requestCert: false })
      const config = { retry: { maxRetries: 3, baseDelay: "1 millis" } } as const
      const channel = yield* client.channel({ port: server.port, peer: serverId, config })
      expect(yield* failure(channel.get("/"))).toMatchObject({ _tag: "PeerVerificationError", reason: "NotMutual" })
      expect(server.accepted()).toBe(1)
      expect(server.bytes()).toBe(0)
    })
  )
})
