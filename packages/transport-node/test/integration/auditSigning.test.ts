/** Which SVID signs what: none that is not valid, and each the records of its own time. */
import { IdentityError, IdentityProvider, X509BundleSet, X509Context } from "@agentweave/spiffe"
import { AuditFile } from "@agentweave/transport-node"
import { expect, it } from "@effect/vitest"
import { Effect, Layer, Stream, SubscriptionRef, TestClock } from "effect"
import { kindOf, trustIn } from "../auditReports.js"
import { refused } from "./auditEvents.js"
import { logFiles, type OpenOptions, read, until, world } from "./auditWorld.js"

/** A workload whose SVID lives for ten minutes, and is renewed when the test says so. */
const setup = Effect.fnUntraced(function* (options: OpenOptions = {}) {
  const { authority, dir, open, path } = yield* world
  const context = authority.context({ path: "/web", ttl: "10 minutes" })
  const current = yield* SubscriptionRef.make(yield* context)
  const identity = Layer.succeed(IdentityProvider.IdentityProvider, {
    x509Context: SubscriptionRef.get(current),
    changes: Stream.orDie(current.changes)
  })
  const { close, log } = yield* open({ identity, ...options })
  let n = 0
  return {
    close,
    renew: Effect.flatMap(context, (next) => SubscriptionRef.set(current, next)),
    record: Effect.suspend(() => {
      const number = n++
      log.unsafeRecord(refused(number))
      return until(() => read(path).includes(`"maxConnections":${number}`))
    }),
    signatures: () => read(path).split('"checkpoint":').length - 1,
    verify: () => AuditFile.verify(logFiles(dir), trustIn(authority, "/web")),
    path
  }
})

it.scoped("what was recorded before a rotation is signed with the SVID of that time", () =>
  Effect.gen(function* () {
    const { close, record, renew, signatures, verify } = yield* setup({ checkpointInterval: "4 minutes" })
    yield* TestClock.adjust("5 minutes")
    // The checkpoint of the fourth minute: it would take the record with it if it came later.
    yield* until(() => signatures() > 0)
    yield* record
    const before = signatures()
    // The successor is not valid at the time of that record.
    yield* TestClock.adjust("150 seconds")
    yield* renew
    yield* until(() => signatures() > before)
    yield* TestClock.adjust("6 minutes")
    // The first SVID has expired by now.
    yield* record
    yield* close
    const report = verify()
    expect(report).toMatchObject({ verdict: "Verified", findings: [] })
    expect(report.signers).toHaveLength(2)
  })
)

it.scoped(
  "nothing is signed with an SVID that has expired: records of that time are unsigned, and not tampered with",
  () =>
    Effect.gen(function* () {
      const { close, record, renew, signatures, verify } = yield* setup()
      yield* record
      yield* TestClock.adjust("2 minutes")
      yield* TestClock.adjust("9 minutes")
      yield* record
      const before = signatures()
      yield* TestClock.adjust("5 minutes")
      yield* record
      expect(signatures()).toBe(before)
      // The successor vouches for nothing from before its own time.
      yield* renew
      yield* record
      yield* close
      const report = verify()
      expect([report.verdict, report.findings.map(kindOf)]).toEqual(["Unsigned", ["Unsigned"]])
      const { from, to } = report.findings[0] as Extract<AuditFile.Finding, { _tag: "Unsigned" }>
      // The two records of the outage; what came before and after is signed.
      expect(to - from).toBeLessThanOrEqual(2)
      expect(report.isClosed).toBe(true)
    })
)

it.scoped("records stay unsigned for a minute at most, also where few come", () =>
  Effect.gen(function* () {
    const { record, signatures } = yield* setup()
    yield* record
    const before = signatures()
    yield* TestClock.adjust("61 seconds")
    yield* until(() => signatures() === before + 1)
    // And nothing is written where there is nothing to sign.
    yield* TestClock.adjust("5 minutes")
    expect(signatures()).toBe(before + 1)
  })
)

it.scoped("an identity that was taken back signs no more", () =>
  Effect.gen(function* () {
    const { authority, dir, open } = yield* world
    const svid = yield* authority.issue({ path: "/web" })
    const context = X509Context.make({ svid, bundles: X509BundleSet.of(authority.bundle) })
    const withdrawn = new IdentityError.IdentityError({ reason: "Withdrawn", description: "taken back" })
    let isThere = true
    const { close, log } = yield* open({
      identity: Layer.succeed(IdentityProvider.IdentityProvider, {
        x509Context: Effect.suspend(() => (isThere ? Effect.succeed(context) : Effect.fail(withdrawn))),
        changes: Stream.concat(Stream.make(context), Stream.never)
      })
    })
    log.unsafeRecord(refused(1))
    isThere = false
    yield* close
    const report = AuditFile.verify(logFiles(dir), trustIn(authority, "/web"))
    expect([report.verdict, report.signers]).toEqual(["Unsigned", []])
  })
)

it.scoped("dates stand still while the clock is set back a little, and a file of its own begins where it is much", () =>
  Effect.gen(function* () {
    const { authority, dir, open, path } = yield* world
    const { close, log } = yield* open()
    yield* TestClock.adjust("10 minutes")
    const back = (by: number) =>
      Effect.flatMap(
        Effect.clockWith((clock) => clock.currentTimeMillis),
        (time) => TestClock.setTime(time - by)
      )
    const dates = (text: string) => Array.from(text.matchAll(/"prev":"\w+","time":(\d+)/g), ([, time]) => Number(time))
    // So many that they are written at once: what sleeps would sleep until the clock is where it was.
    const many = (first: number) => {
      for (let n = 0; n < 1_100; n++) log.unsafeRecord(refused(first + n))
    }
    log.unsafeRecord(refused(1))
    yield* until(() => read(path).includes('"maxConnections":1'))
    yield* back(30_000)
    many(10_000)
    yield* until(() => read(path).includes('"maxConnections":10500'))
    expect(logFiles(dir)).toHaveLength(1)
    const before = dates(read(path))
    expect(before).toEqual(before.toSorted((a, b) => a - b))
    yield* back(180_000)
    many(20_000)
    yield* until(() => logFiles(dir).length === 2)
    log.unsafeRecord(refused(3))
    yield* close
    const files = logFiles(dir)
    expect(files[1]?.text).toContain('"begins":"ClockSetBack"')
    expect(Math.min(...dates(files[1]?.text ?? ""))).toBeLessThan(Math.max(...before))
    expect(AuditFile.verify(files, trustIn(authority, "/web"))).toMatchObject({ verdict: "Verified", findings: [] })
  })
)
