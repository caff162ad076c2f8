import { IdentityError, IdentityProblem, IdentityProvider, type X509Context } from "@agentweave/spiffe"
import { DevAuthority, TestIdentity } from "@agentweave/testkit"
import { AuditEvent, AuditLog, IdentityMonitor } from "@agentweave/transport"
import { HttpApp, HttpRouter } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Layer, Logger, Schema, Scope, Stream, TestClock } from "effect"

type Provider = IdentityProvider.IdentityProvider["Type"]

const quiet = Logger.remove(Logger.defaultLogger)

/** A source that tells its problems, and a log of what is recorded. */
const setting = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const identity = yield* TestIdentity.make(yield* authority.context({ ttl: "1 hour" }))
  const { problems, report } = yield* IdentityProblem.makeReporter
  const provider: Provider = { ...identity.provider, problems }
  const events: Array<AuditEvent.AuditEvent> = []
  const log = Context.get(yield* Layer.build(AuditLog.layerMemory(events)), AuditLog.AuditLog)
  const rotate = Effect.zipLeft(identity.rotate(authority.context({ ttl: "1 hour" })), TestClock.adjust(0))
  return { authority, identity, provider, report, rotate, events, log }
})

/** Monitors until the scope closes. */
const monitor = (provider: Provider, log: AuditLog.AuditLog["Type"]) =>
  Effect.tap(
    Layer.build(
      IdentityMonitor.layer().pipe(
        Layer.provide(Layer.succeed(IdentityProvider.IdentityProvider, provider)),
        Layer.provide(Layer.succeed(AuditLog.AuditLog, log)),
        Layer.provide(quiet)
      )
    ),
    () => TestClock.adjust(0)
  )

const names = (events: ReadonlyArray<AuditEvent.AuditEvent>) =>
  events.map((event) =>
    event._tag === "IdentityProblem" ? `${event.problem}: ${event.reason ?? "by the clock"}` : event._tag
  )

const garbage = { kind: "Discarded", reason: "Malformed", description: "expected a message, got garbage" } as const

describe("what a source tells is on record", () => {
  it.scoped("as it was told, at the time it happened, also before anybody watched", () =>
    Effect.gen(function* () {
      const { events, log, provider, report } = yield* setting
      yield* report(garbage)
      yield* TestClock.adjust("1 second")
      yield* monitor(provider, log)
      yield* report({ kind: "Exposed", reason: "KeyExposed", description: "the file" })
      yield* TestClock.adjust(0)
      const recorded = events.filter(({ _tag }) => _tag === "IdentityProblem")
      expect(recorded).toEqual([
        {
          _tag: "IdentityProblem",
          time: 0,
          problem: "Discarded",
          reason: "Malformed",
          description: "expected a message, got garbage"
        },
        { _tag: "IdentityProblem", time: 1000, problem: "Exposed", reason: "KeyExposed", description: "the file" }
      ])
      const json = Schema.parseJson(AuditEvent.AuditEvent)
      for (const event of recorded) {
        expect(Schema.decodeSync(json)(Schema.encodeSync(json)(event))).toEqual(event)
      }
    })
  )

  it.scoped("once, when it is told by two providers, of which one wraps the other", () =>
    Effect.gen(function* () {
      const { events, log, provider, report } = yield* setting
      yield* monitor(provider, log)
      yield* monitor({ ...provider }, log)
      yield* report(garbage)
      yield* TestClock.adjust(0)
      expect(names(events).filter((name) => name.startsWith("Discarded"))).toEqual(["Discarded: Malformed"])
    })
  )

  it.scoped("an expiry that source and clock both see, once, whoever is first", () =>
    Effect.gen(function* () {
      const { authority, events, identity, log, provider, report } = yield* setting
      const expired = report({ kind: "Expired", reason: "Expired", description: "no successor came" })
      yield* identity.set(yield* authority.context({ ttl: "6 seconds" }))
      yield* monitor(provider, log)
      yield* TestClock.adjust("7 seconds")
      yield* expired
      yield* TestClock.adjust("11 seconds")
      expect(names(events).slice(2)).toEqual(["Stale: by the clock", "Expired: by the clock"])

      yield* identity.set(yield* authority.context({ ttl: "6 seconds" }))
      yield* TestClock.adjust("6 seconds")
      yield* expired
      yield* TestClock.adjust("11 seconds")
      expect(names(events).slice(4)).toEqual(["SvidRotated", "Stale: by the clock", "Expired: Expired"])
    })
  )

  it.scoped("an expiry of the past is no news of the SVID that serves now", () =>
    Effect.gen(function* () {
      const { authority, events, identity, log, provider, report } = yield* setting
      yield* report({ kind: "Expired", reason: "Expired", description: "no successor came" })
      yield* identity.set(yield* authority.context({ ttl: "6 seconds" }))
      yield* monitor(provider, log)
      yield* TestClock.adjust("7 seconds")
      const problems = names(events).filter((name) => name.includes(":"))
      expect(problems.sort()).toEqual(["Expired: Expired", "Expired: by the clock", "Stale: by the clock"])
    })
  )
})

describe("one watch for all", () => {
  it.scoped("a client and a server of one process leave each rotation and problem once", () =>
    Effect.gen(function* () {
      const { events, log, provider, report, rotate } = yield* setting
      const client = yield* Scope.make()
      yield* Scope.extend(monitor(provider, log), client)
      yield* monitor(provider, log)
      yield* rotate
      yield* report(garbage)
      yield* TestClock.adjust(0)
      const all = ["SvidRotated", "BundleRotated", "SvidRotated", "Discarded: Malformed"]
      expect(names(events)).toEqual(all)
      // Who came first leaves, and the other goes on.
      yield* Scope.close(client, Exit.void)
      yield* rotate
      yield* report(garbage)
      yield* TestClock.adjust(0)
      expect(names(events)).toEqual([...all, "SvidRotated", "Discarded: Malformed"])
    })
  )

  it.scoped("ends with the last, and one that begins anew goes on from there", () =>
    Effect.gen(function* () {
      const { events, log, provider, report, rotate } = yield* setting
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* monitor(provider, log)
          yield* monitor(provider, log)
          yield* report(garbage)
          yield* TestClock.adjust(0)
        })
      )
      expect(names(events)).toEqual(["SvidRotated", "BundleRotated", "Discarded: Malformed"])
      yield* rotate
      yield* TestClock.adjust("1 minute")
      expect(events).toHaveLength(3)
      yield* monitor(provider, log)
      expect(names(events).slice(3)).toEqual(["SvidRotated"])
    })
  )

  it.scoped("another log is told everything, and so is the log of another identity", () =>
    Effect.gen(function* () {
      const one = yield* setting
      const two = yield* setting
      yield* monitor(one.provider, one.log)
      yield* monitor(one.provider, two.log)
      yield* monitor(two.provider, two.log)
      expect([one.events.length, two.events.length]).toEqual([2, 4])
    })
  )
})

describe("what was told is not told again", () => {
  it.scoped("an identity that stays withdrawn, whatever time goes by", () =>
    Effect.gen(function* () {
      const { events, identity, log } = yield* setting
      yield* monitor(identity.provider, log)
      yield* identity.fail(new IdentityError.IdentityError({ reason: "Withdrawn", description: "no identity issued" }))
      yield* TestClock.adjust("21 seconds")
      expect(names(events).slice(2)).toEqual(["Withdrawn: Withdrawn"])
    })
  )

  it.scoped("and an SVID that goes stale and expires between two measurements is told in time", () =>
    Effect.gen(function* () {
      const { authority, events, identity, log } = yield* setting
      yield* identity.set(yield* authority.context({ ttl: "6 seconds" }))
      yield* monitor(identity.provider, log)
      yield* TestClock.adjust("6001 millis")
      expect(names(events).slice(2)).toEqual(["Stale: by the clock", "Expired: by the clock"])
    })
  )
})

describe("a sink that takes nothing", () => {
  const broken: ReadonlyArray<readonly [string, AuditLog.AuditLog["Type"]["unsafeRecord"]]> = [
    ["refuses", () => new AuditLog.AuditError({ reason: "Full", description: "the disk is full" })],
    [
      "throws",
      () => {
        throw new Error("a bug")
      }
    ]
  ]
  for (const [what, unsafeRecord] of broken) {
    it.scoped(`and ${what} stops neither the watch nor the identity`, () =>
      Effect.gen(function* () {
        const { events, identity, provider, report, rotate } = yield* setting
        let isBroken = true
        const log: AuditLog.AuditLog["Type"] = {
          unsafeRecord: (event) => {
            if (isBroken) return unsafeRecord(event)
            events.push(event)
            return undefined
          }
        }
        const built = yield* monitor(provider, log)
        yield* report(garbage)
        const next: X509Context.X509Context = yield* rotate
        expect(yield* identity.provider.x509Context).toBe(next)
        expect(yield* Context.get(built, IdentityMonitor.IdentityMonitor).freshness).toBe("Fresh")
        isBroken = false
        yield* rotate
        yield* report(garbage)
        yield* TestClock.adjust(0)
        expect(names(events)).toEqual(["SvidRotated", "Discarded: Malformed"])
      })
    )
  }
})

describe("the state of our identity", () => {
  const withdrawn = new IdentityError.IdentityError({ reason: "Withdrawn", description: "no identity issued" })

  /** A monitor, without a moment to look around. */
  const built = (provider: Provider) =>
    Effect.map(
      Layer.build(
        IdentityMonitor.layer().pipe(
          Layer.provide(Layer.succeed(IdentityProvider.IdentityProvider, provider)),
          Layer.provide(AuditLog.layerMemory([]))
        )
      ),
      (context) => Context.get(context, IdentityMonitor.IdentityMonitor)
    )

  it.scoped("is right from its first instant on", () =>
    Effect.gen(function* () {
      const { identity } = yield* setting
      const monitor = yield* built(identity.provider)
      expect(yield* monitor.freshness).toBe("Fresh")
      expect(yield* monitor.readiness).toEqual({ ready: true, freshness: "Fresh" })
    })
  )

  it.scoped("is None, at once, while the provider waits for its first identity", () =>
    Effect.gen(function* () {
      const { freshness, readiness } = yield* built({ x509Context: Effect.never, changes: Stream.never })
      expect(yield* freshness).toBe("None")
      expect(yield* readiness).toEqual({ ready: false, freshness: "None" })
    })
  )

  it.scoped("is a stream of every change, by the source and by the clock", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const identity = yield* TestIdentity.make()
      const monitor = yield* built(identity.provider)
      const seen: Array<string> = []
      yield* Effect.forkScoped(
        Stream.runForEach(monitor.changes, (freshness) =>
          Effect.gen(function* () {
            expect(yield* monitor.freshness).toBe(freshness)
            seen.push(`${freshness} at ${yield* Clock.currentTimeMillis}`)
          })
        )
      )
      const issue = authority.context({ validity: { notBefore: 0, notAfter: 3_000_000 } })
      yield* TestClock.adjust("1 second")
      yield* identity.set(yield* issue)
      yield* TestClock.adjust("1999 seconds")
      yield* TestClock.adjust("1 second")
      yield* identity.set(yield* authority.context({ validity: { notBefore: 2_001_000, notAfter: 5_001_000 } }))
      yield* TestClock.adjust("3000 seconds")
      yield* TestClock.adjust("1 second")
      yield* identity.fail(withdrawn)
      yield* TestClock.adjust("1 second")
      expect(seen).toEqual([
        "None at 0",
        "Fresh at 1250",
        "Stale at 2000001",
        "Fresh at 2001000",
        "Stale at 4001001",
        "Expired at 5001001",
        "None at 5002000"
      ])
    })
  )

  it.scoped("is ready while an identity is valid, overdue or not, and not ready before, after and without one", () =>
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
      const identity = yield* TestIdentity.make()
      const { readiness } = yield* built(identity.provider)
      const seen: Array<string> = []
      const look = Effect.map(readiness, ({ freshness, ready }) => seen.push(`${freshness} ${ready}`))
      yield* look
      // Issued for later.
      yield* identity.set(yield* authority.context({ validity: { notBefore: 1000, notAfter: 3_001_000 } }))
      yield* look
      yield* TestClock.setTime(1000)
      yield* look
      yield* TestClock.setTime(3_001_000)
      yield* look
      yield* TestClock.setTime(3_001_001)
      yield* look
      yield* identity.set(yield* authority.context({ validity: { notBefore: 3_001_000, notAfter: 6_000_000 } }))
      yield* look
      yield* identity.fail(withdrawn)
      yield* look
      yield* identity.fail(new IdentityError.IdentityError({ reason: "Unavailable", description: "no agent" }))
      yield* look
      expect(seen).toEqual([
        "None false",
        "None false",
        "Fresh true",
        "Stale true",
        "Expired false",
        "Fresh true",
        "None false",
        "None false"
      ])
    })
  )

  it.scoped("is a route for an orchestrator: 200 while an identity is valid, else 503", () =>
    Effect.gen(function* () {
      const { identity } = yield* setting
      const monitor = yield* built(identity.provider)
      const router = HttpRouter.empty.pipe(IdentityMonitor.withReadinessRoute("/readyz"))
      const runtime = yield* Effect.runtime<never>()
      const handler = HttpApp.toWebHandlerRuntime(runtime)(
        Effect.provideService(router, IdentityMonitor.IdentityMonitor, monitor)
      )
      const ask = Effect.promise(async () => {
        const response = await handler(new Request("http://127.0.0.1/readyz"))
        return { status: response.status, cache: response.headers.get("cache-control"), body: await response.json() }
      })
      expect(yield* ask).toEqual({ status: 200, cache: "no-store", body: { ready: true, freshness: "Fresh" } })
      yield* identity.fail(withdrawn)
      expect(yield* ask).toEqual({ status: 503, cache: "no-store", body: { ready: false, freshness: "None" } })
      yield* identity.set(yield* (yield* setting).identity.provider.x509Context)
      expect(yield* ask).toEqual({ status: 200, cache: "no-store", body: { ready: true, freshness: "Fresh" } })
    })
  )
})
