/** An `HttpApi` whose errors are typed at both ends, for one verified peer. */
import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { PeerIdentity, SecureChannel } from "@agentweave/transport"
import { NodeSecureServer } from "@agentweave/transport-node"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiClient,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiSchema,
  HttpServer
} from "@effect/platform"
import { Effect, Layer, Schema } from "effect"

export class Invoice extends Schema.Class<Invoice>("Invoice")({ id: Schema.Number, readBy: Schema.String }) {}

export class InvoiceNotFound extends Schema.TaggedError<InvoiceNotFound>()(
  "InvoiceNotFound",
  { id: Schema.Number },
  HttpApiSchema.annotations({ status: 404 })
) {}

const find = HttpApiEndpoint.get("find", "/invoices/:id")
  .setPath(Schema.Struct({ id: Schema.NumberFromString }))
  .addSuccess(Invoice)
  .addError(InvoiceNotFound)

/** What both ends know. */
class Billing extends HttpApi.make("billing").add(HttpApiGroup.make("invoices").add(find)) {}

const InvoicesLive = HttpApiBuilder.group(Billing, "invoices", (handlers) =>
  handlers.handle("find", ({ path: { id } }) =>
    id === 42
      ? Effect.map(PeerIdentity.caller, ({ spiffeId }) => new Invoice({ id, readBy: spiffeId }))
      : new InvoiceNotFound({ id })
  )
)

export const ServerLive = (port: number) =>
  HttpApiBuilder.serve().pipe(
    Layer.provide(HttpApiBuilder.api(Billing)),
    Layer.provide(InvoicesLive),
    HttpServer.withLogAddress,
    Layer.provideMerge(
      NodeSecureServer.layer({ port, authorize: PeerMatcher.exactly(SpiffeId.make("spiffe://example.org/web")) })
    )
  )

/** Fails with `InvoiceNotFound`, or, where the peer is not reached, with an `HttpClientError` that has our error as its cause. */
export const invoice = (baseUrl: string, id: number) =>
  HttpApiClient.make(Billing).pipe(
    Effect.flatMap(({ invoices }) => invoices.find({ path: { id } })),
    Effect.provide(SecureChannel.layerHttpClient({ peer: "spiffe://example.org/billing", baseUrl }))
  )
