import { X509Bundle, X509Svid } from "@agentweave/spiffe"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Either, Logger, TestClock } from "effect"
import { make, readOnce } from "../src/internal/files/identityRotation.js"
import { bundle, certificate, key, keyPem, poll, provide, put, rest, setting, sources } from "./identityOfFiles.js"

describe("identity from files: watching and reporting", () => {
  it.scoped("only changes of the files and links concerned cause a read", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      yield* provide(memory)
      const before = memory.reads
      memory.touch("/id/unrelated")
      yield* TestClock.adjust(0)
      assert.strictEqual(memory.reads, before)
      memory.touch(certificate)
      yield* TestClock.adjust(0)
      assert.isAbove(memory.reads, before)
    })
  )

  it.scoped("a directory that cannot be watched is reported once, tried again, and polled meanwhile", () =>
    Effect.gen(function* () {
      const { memory, second } = yield* setting
      memory.watchFailures.set("/id", "ENOSPC")
      const { events, serving } = yield* provide(memory)
      yield* poll
      yield* poll
      const failed = events.filter(({ _tag }) => _tag === "WatchFailed")
      assert.deepStrictEqual(failed, [{ _tag: "WatchFailed", directory: "/id", code: "ENOSPC" }])
      put(memory, { svid: second })
      yield* poll
      yield* rest
      assert.strictEqual(yield* serving, second.fingerprint)
      memory.watchFailures.clear()
      yield* poll
      assert.strictEqual(memory.watchers.get("/id")?.size, 1)
    })
  )

  it.scoped("a directory that was replaced, or whose watcher broke, is watched anew", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      yield* provide(memory)
      for (const event of ["id", "broken"]) {
        const [before] = memory.watchers.get("/id") ?? []
        if (event === "broken") before?.broken("EIO")
        else before?.notify(event)
        yield* TestClock.adjust(0)
        const after = Array.from(memory.watchers.get("/id") ?? [])
        assert.strictEqual(after.length, 1)
        assert.notStrictEqual(after[0], before)
      }
    })
  )

  it.effect("directories of an old generation are watched no more, and none after the end", () =>
    Effect.gen(function* () {
      const { first, memory, authority } = yield* setting
      memory.contents.clear()
      for (const path of [certificate, key, bundle]) {
        memory.link(path, path.replace("/id/", "..data/"))
      }
      const publish = (generation: number, svid: X509Svid.X509Svid) => {
        memory.set(`/id/..${generation}/svid.pem`, X509Svid.certificatesPem(svid))
        memory.set(`/id/..${generation}/svid_key.pem`, keyPem(svid))
        memory.set(`/id/..${generation}/bundle.pem`, X509Bundle.toPem(authority.bundle))
        memory.link("/id/..data", `..${generation}`)
        memory.touch("/id/..data")
      }
      const watched = () => Array.from(memory.watchers).flatMap(([path, { size }]) => (size === 0 ? [] : [path]))
      publish(1, first)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { serving } = yield* provide(memory)
          assert.deepStrictEqual(watched().sort(), ["/id", "/id/..1"])
          const second = yield* authority.issue({ path: "/api" })
          publish(2, second)
          yield* rest
          assert.strictEqual(yield* serving, second.fingerprint)
          assert.deepStrictEqual(watched().sort(), ["/id", "/id/..2"])
        })
      )
      assert.deepStrictEqual(watched(), [])
    })
  )

  it.scoped("a key that everybody can read is reported once, and again when it happens again", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      memory.worldReadable.add(key).add(bundle).add(certificate)
      const { events, tags } = yield* provide(memory)
      yield* poll
      yield* poll
      const exposures = () => tags().filter((tag) => tag === "KeyExposed").length
      assert.strictEqual(exposures(), 1)
      assert.deepInclude(events, { _tag: "KeyExposed", path: key })
      memory.worldReadable.delete(key)
      yield* poll
      memory.worldReadable.add(key)
      yield* poll
      assert.strictEqual(exposures(), 2)
    })
  )

  it.scoped("a defect in the hook does not stop the rotation", () =>
    Effect.gen(function* () {
      const { memory, second } = yield* setting
      const provider = yield* make(memory.files, {
        sources,
        debounce: Duration.millis(50),
        pollInterval: Duration.seconds(5),
        onEvent: () => {
          throw new Error("the hook")
        }
      })
      yield* TestClock.adjust(0)
      put(memory, { svid: second })
      memory.touch(key)
      yield* rest
      assert.strictEqual((yield* provider.x509Context).svid.fingerprint, second.fingerprint)
    })
  )

  it.scoped(
    "what cannot be used is in the audit log by itself, once while it lasts, and the last good one serves",
    () =>
      Effect.gen(function* () {
        const { authority, first, memory, second } = yield* setting
        const { problems, serving } = yield* provide(memory)
        const spoil: ReadonlyArray<readonly [() => void, RegExp]> = [
          [() => memory.set(key, keyPem(second)), /^Discarded Malformed: certificate and key .*svid.pem/],
          [() => memory.set(certificate, "garbage"), /^Discarded Malformed: certificate and key .*svid.pem/],
          [() => memory.set(bundle, "garbage"), /^Discarded Malformed: bundle .*bundle.pem/],
          [() => memory.contents.delete(bundle), /^Unavailable Unavailable: bundle .*bundle.pem: .*ENOENT/]
        ]
        for (const [index, [change, expected]] of spoil.entries()) {
          change()
          for (let n = 0; n < 3; n++) yield* Effect.zipRight(poll, rest)
          assert.lengthOf(problems(), index + 1)
          assert.match(problems()[index] ?? "", expected)
          assert.strictEqual(yield* serving, first.fingerprint)
          put(memory, { svid: first, bundle: authority.bundle })
          yield* Effect.zipRight(poll, rest)
        }
        assert.lengthOf(problems(), spoil.length)
      })
  )

  it.scoped(
    "a bundle with an entry that cannot be read serves without it, at the start too, and the entry is on record",
    () =>
      Effect.gen(function* () {
        const { authority, first, memory, second } = yield* setting
        const spoilt = X509Bundle.toPem(authority.bundle).replace(
          "-----BEGIN",
          "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN"
        )
        memory.set(bundle, spoilt)
        const { problems, serving } = yield* provide(memory)
        assert.strictEqual(yield* serving, first.fingerprint)
        for (let n = 0; n < 3; n++) yield* Effect.zipRight(poll, rest)
        assert.lengthOf(problems(), 1)
        assert.match(problems()[0] ?? "", /^Discarded Malformed: bundle .*bundle.pem: .* serve: certificate 1: /)
        put(memory, { svid: second })
        yield* Effect.zipRight(poll, rest)
        assert.strictEqual(yield* serving, second.fingerprint)
        assert.lengthOf(problems(), 1)
      })
  )

  it.scoped("an SVID that expires while it serves is one problem, though files and clock both say so", () =>
    Effect.gen(function* () {
      const { authority, memory } = yield* setting
      put(memory, { svid: yield* authority.issue({ path: "/api", ttl: "20 seconds" }) })
      const { problems } = yield* provide(memory)
      yield* TestClock.adjust("1 minute")
      assert.lengthOf(
        problems().filter((problem) => !problem.startsWith("Stale")),
        1
      )
      assert.match(problems().at(-1) ?? "", /^Expired/)
      // Another one that has expired cannot be used.
      put(memory, { svid: yield* authority.issue({ path: "/api", validity: "Expired" }) })
      yield* Effect.zipRight(poll, rest)
      assert.match(problems().at(-1) ?? "", /^Discarded Expired/)
    })
  )

  it.scoped("what was wrong before anybody watched is in the audit log too", () =>
    Effect.gen(function* () {
      const { memory } = yield* setting
      memory.worldReadable.add(key)
      memory.watchFailures.set("/id", "EMFILE")
      const { problems } = yield* provide(memory)
      yield* poll
      assert.deepStrictEqual(
        problems().map((problem) => problem.split(":")[0]),
        ["Exposed KeyExposed", "Unavailable WatchFailed"]
      )
    })
  )

  it.scoped("no report, error or log line holds a piece of any key", () =>
    Effect.gen(function* () {
      const { memory, first, second } = yield* setting
      const lines: Array<string> = []
      const logger = Logger.make((entry) => {
        lines.push(Logger.logfmtLogger.log(entry), Logger.structuredLogger.log(entry).toString())
        lines.push(JSON.stringify(Logger.structuredLogger.log(entry)))
      })
      const secret = keyPem(first)
      const spoiled = [
        secret.slice(0, -20),
        secret.slice(28),
        secret.replace("PRIVATE", "PUBLIC"),
        secret.replace("END", "END "),
        `${secret}${keyPem(second)}`,
        secret.replace(/\n/g, ""),
        secret.replace(/[A-Z]/g, (letter) => letter.toLowerCase()),
        keyPem(second)
      ]
      const failures: Array<unknown> = []
      yield* Effect.gen(function* () {
        const { audit, events } = yield* provide(memory)
        for (const path of [key, certificate, bundle]) {
          const good = memory.contents.get(path) ?? ""
          for (const content of spoiled) {
            memory.write(path, content)
            yield* rest
            const result = yield* Effect.either(readOnce(memory.files, sources))
            if (Either.isLeft(result)) failures.push(result.left, result.left.stack, String(result.left))
          }
          memory.write(path, good)
          yield* rest
        }
        assert.isAbove(audit.length, 10)
        failures.push(events, audit)
      }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
      assert.isAbove(failures.length, 20)
      const everything = `${lines.join("\n")}\n${failures.map((one) => `${one} ${JSON.stringify(one)}`).join("\n")}`
      for (const pem of [secret, keyPem(second)]) {
        const body = pem.split("\n").slice(1, -2).join("")
        for (let from = 40; from + 8 <= body.length; from += 4) {
          const piece = body.slice(from, from + 8)
          assert.notInclude(everything.toLowerCase(), piece.toLowerCase())
        }
      }
      assert.include(everything, first.spiffeId)
    })
  )
})
