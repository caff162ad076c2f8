import * as DevAuthority from "@agentweave/testkit/DevAuthority"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { Effect } from "effect"
import { realTime, startClient } from "./fixture.js"

export const get = HttpClientRequest.get("/")

export const setup = Effect.gen(function* () {
  yield* realTime
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const clientIdentity = yield* authority.context({ path: "/client" })
  const serverIdentity = yield* authority.context({ path: "/server" })
  return {
    authority,
    clientIdentity,
    serverIdentity,
    clientId: authority.id("/client"),
    serverId: authority.id("/server"),
    client: yield* startClient(clientIdentity),
    raw: (path: string) => authority.issueRaw({ path })
  }
})
