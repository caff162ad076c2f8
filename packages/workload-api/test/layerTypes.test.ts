import type { IdentityProvider, InvalidConfigError } from "@agentweave/spiffe"
import {
  type InvalidEndpointError,
  WorkloadApi,
  WorkloadApiClient,
  WorkloadApiServer,
  type WorkloadApiServerError
} from "@agentweave/workload-api"
import type { ConfigError, Layer } from "effect"
import { expectTypeOf, it } from "vitest"

type Refused = InvalidConfigError.InvalidConfigError
type BadEndpoint = InvalidEndpointError.InvalidEndpointError
type NotServed = WorkloadApiServerError.WorkloadApiServerError
type Provided = IdentityProvider.IdentityProvider | WorkloadApi.WorkloadApi

// Only their types are looked at: `tsc` is what fails here.
const types = (_: () => unknown) => {}

it("the layers of the Workload API provide, refuse and need exactly what they say", () =>
  types(() => {
    expectTypeOf(WorkloadApi.layer()).toEqualTypeOf<Layer.Layer<Provided, BadEndpoint | Refused>>()
    expectTypeOf(WorkloadApi.layerConfig({})).toEqualTypeOf<
      Layer.Layer<Provided, BadEndpoint | Refused | ConfigError.ConfigError>
    >()
    expectTypeOf(WorkloadApi.layerClient()).toEqualTypeOf<
      Layer.Layer<Provided, Refused, WorkloadApiClient.WorkloadApiClient>
    >()
    expectTypeOf(WorkloadApiClient.layer).returns.toEqualTypeOf<
      Layer.Layer<WorkloadApiClient.WorkloadApiClient, Refused>
    >()
    expectTypeOf(WorkloadApiServer.layer).returns.toEqualTypeOf<Layer.Layer<never, NotServed | Refused>>()
    expectTypeOf(WorkloadApiServer.layerIdentityProvider).returns.toEqualTypeOf<
      Layer.Layer<never, NotServed | Refused, IdentityProvider.IdentityProvider>
    >()
  }))
