/** A share of the volume is kept for peers that prove who they are. */
import { open } from "node:fs/promises"
import { dirname, join } from "node:path"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import type { AuditEvent } from "@agentweave/transport"
import { expect, it } from "@effect/vitest"
import { Clock, Effect, Exit, Scope, TestClock } from "effect"
import { make, type Space } from "../../src/internal/audit/writer.js"
import { folder } from "./auditEvents.js"
import { attempted, established, turnedAway } from "./auditStrangerEvents.js"
import { eventsOf, read, until } from "./auditWorld.js"

const mebibyte = 1024 * 1024

/** A log on a volume whose free space the test sets, in bytes, with a reserve of 64 MiB. */
const setup = Effect.fnUntraced(function* (size: number) {
  const path = join(yield* folder, "audit.ndjson")
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = IdentityProvider.layerStatic(yield* authority.context({ path: "/api", ttl: "1 day" }))
  const volume = { free: size, isUnknown: false }
  const spaceOf = async (of: string): Promise<Space> => {
    expect(of).toBe(dirname(path))
    if (volume.isUnknown) throw new Error("ENOSYS: function not implemented")
    return { bsize: 4096, blocks: size / 4096, bavail: Math.floor(volume.free / 4096) }
  }
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const log = yield* make({ path, reservedSpace: 64 * mebibyte }, open, spaceOf).pipe(
    Scope.extend(scope),
    Effect.provide(identity)
  )
  let next = 0
  const record = (event: (n: number, time: number) => AuditEvent.AuditEvent, n: number) =>
    Effect.map(Clock.currentTimeMillis, (time) => log.unsafeRecord(event(n, time)))
  const stranger = Effect.suspend(() => Effect.zipRight(record(attempted, ++next), record(turnedAway, next)))
  const peer = Effect.suspend(() => Effect.zipRight(record(attempted, ++next), record(established, next)))
  /** Leaves so much free space, and has the log look at it: it does so once a second, before it writes. */
  const leave = (free: number) =>
    Effect.gen(function* () {
      volume.free = free
      yield* TestClock.adjust("2 seconds")
      yield* peer
      yield* until(() => read(path).includes(`"connectionId":"s${next}"`))
    })
  const close = Scope.close(scope, Exit.void)
  const tags = Effect.map(close, () =>
    eventsOf(read(path))
      .filter((event) => event._tag !== "ConnectionEstablished")
      .map((event) => ("connectionId" in event ? `${event._tag} ${event.connectionId}` : event._tag))
  )
  return { leave, peer, stranger, tags, volume }
})

it.scoped("where less is free than the reserve strangers are only counted, until there is more again", () =>
  Effect.gen(function* () {
    const { leave, peer, stranger, tags } = yield* setup(10_000 * mebibyte)
    yield* stranger // s1
    yield* leave(63 * mebibyte) // s2
    yield* stranger // s3
    yield* peer // s4
    yield* leave(65 * mebibyte) // s5
    yield* stranger // s6
    expect(yield* tags).toEqual([
      "ConnectionAttempted s1",
      "ConnectionRefused s1",
      "ConnectionAttempted s2",
      "ConnectionAttempted s4",
      "ConnectionAttempted s5",
      "ConnectionAttempted s6",
      "ConnectionRefused s6",
      "ConnectionsRefused"
    ])
  })
)

it.scoped("of a small volume no more than a twentieth is reserved", () =>
  Effect.gen(function* () {
    const { leave, stranger, tags } = yield* setup(200 * mebibyte)
    yield* leave(11 * mebibyte) // s1
    yield* stranger // s2
    yield* leave(9 * mebibyte) // s3
    yield* stranger // s4
    const seen = yield* tags
    expect(seen).toContain("ConnectionRefused s2")
    expect(seen).not.toContain("ConnectionRefused s4")
    expect(seen).toContain("ConnectionsRefused")
  })
)

it.scoped("where the system does not tell its free space nothing is reserved", () =>
  Effect.gen(function* () {
    const { leave, stranger, tags, volume } = yield* setup(10_000 * mebibyte)
    volume.isUnknown = true
    yield* leave(0) // s1
    yield* stranger // s2
    expect(yield* tags).toContain("ConnectionRefused s2")
  })
)
