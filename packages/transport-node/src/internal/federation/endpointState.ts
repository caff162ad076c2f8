import type { SpiffeBundle } from "@agentweave/spiffe/SpiffeBundle"
import * as Either from "effect/Either"
import type { BundleEndpoint } from "../../BundleEndpoint.js"
import { BundleEndpointError } from "../../BundleEndpointError.js"
import { describeUrl } from "./endpointUrl.js"

/** The state of one endpoint. */
export interface Endpoint {
  readonly endpoint: BundleEndpoint
  /** The last good bundle. */
  readonly bundle: SpiffeBundle | undefined
  /** The highest sequence number seen. */
  readonly sequence: bigint | undefined
  /** Whether a bundle was ever fetched, as opposed to configured. */
  readonly fetched: boolean
  /** Failed attempts since the last good one. */
  readonly failures: number
}

export const initial = (endpoint: BundleEndpoint): Endpoint => ({
  endpoint,
  bundle: endpoint.bundle,
  sequence: endpoint.bundle?.sequence,
  fetched: false,
  failures: 0
})

/**
 * Takes a fetched bundle, unless its sequence number is lower than one already seen. Without a number the bundle fetched
 * last is the newest (SPIFFE_Federation section 4.2), and the highest number seen stays in force.
 */
export const accept = (self: Endpoint, bundle: SpiffeBundle): Either.Either<Endpoint, BundleEndpointError> => {
  const { sequence } = bundle
  if (sequence !== undefined && self.sequence !== undefined && sequence < self.sequence) {
    return Either.left(
      new BundleEndpointError({
        reason: "SequenceRegressed",
        trustDomain: self.endpoint.trustDomain,
        url: describeUrl(self.endpoint.url),
        description: `expected a sequence number of at least ${self.sequence}, got ${sequence}`
      })
    )
  }
  return Either.right({ ...self, bundle, sequence: sequence ?? self.sequence, fetched: true, failures: 0 })
}

export const reject = (self: Endpoint): Endpoint => ({ ...self, failures: self.failures + 1 })
