import { RunnerPeers } from "@agentweave/cluster"
import { PeerDirectory } from "@agentweave/transport"
import { RunnerAddress } from "@effect/cluster"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"

const at = (host: string, port: number) =>
  Effect.flatMap(RunnerPeers.RunnerPeers, (peers) => peers.of(RunnerAddress.make(host, port)))

describe("RunnerPeers.layer", () => {
  const peers = RunnerPeers.layer(({ host }) => (host === "nobody" ? undefined : `spiffe://example.org/${host}`))

  it.effect("gives the ID that the function has for an address", () =>
    Effect.gen(function* () {
      expect(yield* at("one", 1)).toBe("spiffe://example.org/one")
    }).pipe(Effect.provide(peers))
  )

  it.effect("an address without an ID, and one whose ID is none, are unknown", () =>
    Effect.gen(function* () {
      const unknown = { _tag: "RunnerIdentityError", reason: "UnknownAddress", isRetryable: false }
      expect(yield* Effect.flip(at("nobody", 1))).toMatchObject({ ...unknown, address: "nobody:1" })
      expect(yield* Effect.flip(at("no id", 2))).toMatchObject({ ...unknown, address: "no id:2" })
    }).pipe(Effect.provide(peers))
  )
})

describe("RunnerPeers.layerDirectory", () => {
  const directory = PeerDirectory.layerStatic({
    "spiffe://example.org/one": "https://one.internal:34431/base",
    "spiffe://example.org/two": "https://two.internal",
    "spiffe://example.org/six": "https://[fd00::6]:34431",
    "spiffe://example.org/a": "https://twice.internal:1",
    "spiffe://example.org/b": "https://twice.internal:1"
  })
  const peers = Layer.provide(RunnerPeers.layerDirectory, directory)

  it.effect("gives the peer that the directory has at an address, whatever the path of its URL", () =>
    Effect.gen(function* () {
      expect(yield* at("one.internal", 34_431)).toBe("spiffe://example.org/one")
      expect(yield* at("ONE.internal", 34_431)).toBe("spiffe://example.org/one")
      expect(yield* at("two.internal", 443)).toBe("spiffe://example.org/two")
      expect(yield* at("fd00::6", 34_431)).toBe("spiffe://example.org/six")
    }).pipe(Effect.provide(peers))
  )

  it.effect("an address with no peer, and one with two, are unknown", () =>
    Effect.gen(function* () {
      const none = yield* Effect.flip(at("one.internal", 34_432))
      expect(none.message).toBe("UnknownAddress: expected one peer of the directory at one.internal:34432, got none")
      const two = yield* Effect.flip(at("twice.internal", 1))
      expect(two.message).toContain("got spiffe://example.org/a, spiffe://example.org/b")
    }).pipe(Effect.provide(peers))
  )

  it.effect("a directory that cannot name its peers knows no runner", () =>
    Effect.gen(function* () {
      expect(yield* Effect.flip(at("one.internal", 1))).toMatchObject({ reason: "UnknownAddress" })
    }).pipe(
      Effect.provide(
        Layer.provide(
          RunnerPeers.layerDirectory,
          Layer.succeed(PeerDirectory.PeerDirectory, { resolve: () => Effect.succeed("https://one.internal:1") })
        )
      )
    )
  )
})
