import type { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import type { Layer } from "effect"
import { expectTypeOf, it } from "vitest"

it("an authority's identity as a layer provides, refuses and needs exactly what it says", () => {
  expectTypeOf(DevAuthority.layerIdentity).returns.toEqualTypeOf<
    Layer.Layer<IdentityProvider.IdentityProvider, DevAuthority.IssueError>
  >()
})
