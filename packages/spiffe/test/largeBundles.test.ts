import { SpiffeBundle, TrustDomain, X509Bundle } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { assert, describe, it } from "@effect/vitest"
import { Clock, type Duration, Effect, Either } from "effect"

const domain = TrustDomain.make("example.org")

const entries = 1300

/** A large bundle in both forms: so many authorities, of which a few occur again and again. */
const large = Effect.gen(function* () {
  const authority = yield* DevAuthority.make({ trustDomain: "example.org" })
  const { bundle } = yield* authority.rotateRoot()
  const { keys }: { readonly keys: ReadonlyArray<unknown> } = JSON.parse(
    SpiffeBundle.toJson(SpiffeBundle.make({ x509Bundle: bundle }))
  )
  const pem = X509Bundle.toPem(bundle).repeat(entries / 2)
  const document = JSON.stringify({ keys: Array.from({ length: entries }, (_, index) => keys[index % keys.length]) })
  return { bundle, pem, document }
})

/** How often an effect lets others run, by sleeping. */
const countPauses = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const clock = Clock.make()
    let pauses = 0
    const counting: Clock.Clock = {
      [Clock.ClockTypeId]: Clock.ClockTypeId,
      currentTimeMillis: clock.currentTimeMillis,
      currentTimeNanos: clock.currentTimeNanos,
      unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis(),
      unsafeCurrentTimeNanos: () => clock.unsafeCurrentTimeNanos(),
      sleep: (duration: Duration.Duration) =>
        Effect.suspend(() => {
          pauses++
          return clock.sleep(duration)
        })
    }
    const result = yield* Effect.withClock(effect, counting)
    return { pauses, result }
  })

describe("a large bundle is read in pieces", () => {
  it.live("others run after every few keys of a document, and after every few thousand tokens", () =>
    Effect.gen(function* () {
      const { bundle, document } = yield* large
      const keys = yield* countPauses(SpiffeBundle.decode(domain, document))
      assert.deepStrictEqual(keys.result.x509Bundle, bundle)
      assert.isAtLeast(keys.pauses, entries / 8)
      const many = '"0123456789abcdef",'.repeat(50_000)
      const tokens = yield* countPauses(SpiffeBundle.decode(domain, `{"keys": [], "x": [${many}1]}`))
      assert.isAtLeast(tokens.pauses, 100_000 / 4096)
    })
  )

  it.live("others run after every few certificates of PEM, and after every few thousand lines", () =>
    Effect.gen(function* () {
      const { bundle, pem } = yield* large
      const certificates = yield* countPauses(X509Bundle.decodePem(domain, pem))
      assert.deepStrictEqual(certificates.result, bundle)
      assert.isAtLeast(certificates.pauses, entries / 8)
      const comments = yield* countPauses(
        X509Bundle.decodePem(domain, `${"comment\n".repeat(100_000)}${X509Bundle.toPem(bundle)}`)
      )
      assert.deepStrictEqual(comments.result, bundle)
      assert.isAtLeast(comments.pauses, Math.floor(100_000 / 2048))
    })
  )
})

describe("a document that would take long to parse in one piece is refused before it is", () => {
  const size = 1024 * 1024
  const documents: Record<string, readonly [text: string, problem: RegExp]> = {
    "arrays in one another": ["[".repeat(size), /nested at most 32 deep/],
    "objects in one another": ['{"a":'.repeat(size / 5), /nested at most 32 deep/],
    "many objects": [`[${'{"a":1},'.repeat(size / 8)}0]`, /at most 114\d\d objects and arrays/],
    "many arrays": [`{"keys":[${"[],".repeat(size / 3)}0]}`, /at most 114\d\d objects and arrays/],
    "many names": [`{${'"a":1,'.repeat(size / 6)}"b":1}`, /at most 665\d\d values/],
    "many texts": [`[${'"a",'.repeat(size / 4)}0]`, /at most 665\d\d values/]
  }
  for (const [title, [text, problem]] of Object.entries(documents)) {
    it.effect(title, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(SpiffeBundle.decode(domain, text).pipe(Effect.withClock(Clock.make())))
        assert.strictEqual(error.reason, "Malformed")
        assert.match(error.description, problem)
        assert.deepStrictEqual(SpiffeBundle.parse(domain, text), Either.left(error))
      })
    )
  }

  it.effect("but none whose keys are short, or whose texts look like that", () =>
    Effect.gen(function* () {
      const number = "A".repeat(43)
      const key = `{"kty":"EC","kid":"a","use":"jwt-svid","crv":"P-256","x":"${number}","y":"${number}"}`
      const quoted = `"\\"${"[".repeat(100)}${"{,".repeat(100_000)}\\\\"`
      const text = `{"x":${quoted},"keys":[${`${key},`.repeat(5000)}${key}]}`
      const { ignoredKeys } = yield* SpiffeBundle.parse(domain, text)
      assert.strictEqual(ignoredKeys, 5001)
    })
  )
})
