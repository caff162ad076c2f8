/** Where a command takes the workload's identity from: files, or a Workload API. */
import { type IdentityError, IdentityProvider, type InvalidConfigError } from "@agentweave/spiffe"
import { NodeIdentity } from "@agentweave/transport-node"
import { type InvalidEndpointError, WorkloadApi } from "@agentweave/workload-api"
import { type ConfigError, Effect, Layer } from "effect"
import { UsageError } from "../UsageError.js"

/** Files, all three or none; else a Workload API, by default the one that `SPIFFE_ENDPOINT_SOCKET` names. */
export interface Source {
  readonly cert?: string | undefined
  readonly key?: string | undefined
  readonly bundle?: string | undefined
  readonly endpoint?: string | undefined
}

type Failure =
  | UsageError
  | IdentityError.IdentityError
  | InvalidConfigError.InvalidConfigError
  | InvalidEndpointError.InvalidEndpointError
  | ConfigError.ConfigError

/** As the identity of a connection. */
export const layer = ({
  bundle,
  cert,
  endpoint,
  key
}: Source): Layer.Layer<IdentityProvider.IdentityProvider, Failure> => {
  if (cert !== undefined && key !== undefined && bundle !== undefined) {
    return NodeIdentity.layerFiles({ certificate: cert, key, bundle })
  }
  if (cert !== undefined || key !== undefined || bundle !== undefined) {
    return Layer.fail(new UsageError({ message: "expected --cert, --key and --bundle together, or none of them" }))
  }
  return WorkloadApi.layer({ endpoint, initialTimeout: "5 seconds" })
}

/** The identity as a Workload API delivers it now. */
export const fromWorkloadApi = (endpoint: string | undefined) =>
  Effect.flatMap(IdentityProvider.IdentityProvider, ({ x509Context }) => x509Context).pipe(
    Effect.provide(WorkloadApi.layer({ endpoint, initialTimeout: "5 seconds" }))
  )
