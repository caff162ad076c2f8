/** An Express app behind the gate: every request of it has a verified caller, and is on record. */
import { PeerMatcher, SpiffeId, TrustDomain } from "@agentweave/spiffe"
import { NodeSecureServer } from "@agentweave/transport-node"
import { Option } from "effect"
import express, { type RequestHandler } from "express"

const admins = PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/admin"))

/** Lets some callers through to what comes after it. */
const only =
  (matcher: PeerMatcher.PeerMatcher): RequestHandler =>
  (request, response, next) => {
    const caller = NodeSecureServer.callerOf(request)
    if (Option.isSome(caller) && PeerMatcher.matches(matcher, caller.value.spiffeId)) next()
    else response.status(403).json({ error: "not yours" })
  }

const app = express()
app.use(express.json())
app.get("/whoami", (request, response) => {
  response.json({
    caller: Option.match(NodeSecureServer.callerOf(request), { onNone: () => null, onSome: (peer) => peer.spiffeId })
  })
})
app.delete("/users/:id", only(admins), (_, response) => {
  response.status(204).end()
})

/** Who may connect at all is the server's to say; who may do what, the app's. */
export const server = (port: number) =>
  NodeSecureServer.makeListener(app, { port, authorize: PeerMatcher.memberOf(TrustDomain.make("example.org")) })
