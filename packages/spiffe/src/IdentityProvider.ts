/**
 * The source of this workload's identity, as a service.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type { IdentityError } from "./IdentityError.js"
import type { X509Context } from "./X509Context.js"

/**
 * Own SVID and trust bundles, now and as they rotate.
 *
 * @since 0.1.0
 * @category tags
 */
export class IdentityProvider extends Context.Tag("@agentweave/spiffe/IdentityProvider")<
  IdentityProvider,
  {
    /** The newest snapshot. Cheap: it is read at every handshake. */
    readonly x509Context: Effect.Effect<X509Context, IdentityError>
    /** The current snapshot first, then every rotation. Ends only with an error or with the provider. */
    readonly changes: Stream.Stream<X509Context, IdentityError>
  }
>() {}

/**
 * A fixed identity that never rotates.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStatic = (context: X509Context): Layer.Layer<IdentityProvider> =>
  Layer.succeed(IdentityProvider, {
    x509Context: Effect.succeed(context),
    changes: Stream.concat(Stream.make(context), Stream.never)
  })
