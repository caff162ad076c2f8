import { IdentityProblem, IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { describe } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { eachEnds, row } from "./support/uninterruptible.js"

describe("every layer of the identities", () => {
  eachEnds(new URL("../src/", import.meta.url), [
    row(
      "IdentityProvider.layerStatic",
      Effect.flatMap(DevAuthority.make({ trustDomain: "example.org" }), (authority) =>
        Effect.map(authority.context(), IdentityProvider.layerStatic)
      )
    ),
    row("a layer of IdentityProblem.makeReporter", Effect.succeed(Layer.scopedDiscard(IdentityProblem.makeReporter)))
  ])
})
