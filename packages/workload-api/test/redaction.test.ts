import { createPrivateKey, type KeyObject } from "node:crypto"
import { inspect } from "node:util"
import { IdentityProvider } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { WorkloadMessage } from "@agentweave/workload-api"
import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Either, FastCheck, Inspectable, Logger, LogLevel, Redacted, Stream, TestClock } from "effect"
import { leaks } from "./support/leaks.js"
import { messageOf } from "./support/messages.js"
import * as ScriptedAgent from "./support/scriptedAgent.js"
import { unusableUpdates } from "./support/unusableUpdates.js"

/** The private scalar of an EC key: what must not be seen. The rest of its DER is the public key. */
const secretOf = (key: KeyObject): Uint8Array => Buffer.from(key.export({ format: "jwk" }).d ?? "", "base64url")

/** The secrets of a message, of the keys in it that are keys. */
const secretsOf = (message: WorkloadMessage.X509SvidResponse): ReadonlyArray<Uint8Array> =>
  message.svids.flatMap(({ x509SvidKey }) => {
    const der = { key: Buffer.from(Redacted.value(x509SvidKey)), format: "der", type: "pkcs8" } as const
    return Either.match(
      Either.try(() => createPrivateKey(der)),
      { onLeft: () => [], onRight: (key) => [secretOf(key)] }
    )
  })

/** Every way in which a value is usually printed. */
const printed = (value: unknown): ReadonlyArray<string> => [
  String(value),
  `${JSON.stringify(value)}`,
  Inspectable.toStringUnknown(value),
  inspect(value, { depth: Number.POSITIVE_INFINITY, maxArrayLength: null, maxStringLength: null }),
  inspect(value, { depth: 12, showHidden: true, maxArrayLength: null, maxStringLength: null, getters: true }),
  Cause.pretty(Cause.fail(value)),
  Cause.pretty(Cause.die(value), { renderErrorCause: true }),
  JSON.stringify(Cause.fail(value))
]

describe("the search for a secret", () => {
  const secret = Uint8Array.from({ length: 32 }, (_, index) => (index * 37 + 11) % 256)
  const key = Buffer.concat([Buffer.from("before"), secret, Buffer.from("after")])

  it("finds it in every form", () => {
    for (const text of [
      inspect(key),
      inspect(Uint8Array.from(key)),
      JSON.stringify(key),
      JSON.stringify({ key: key.toString("base64") }),
      key.toString("base64url"),
      key.toString("hex"),
      key.toString("latin1"),
      `${Uint8Array.from(key)}`
    ]) {
      expect(leaks([text], [secret])).toBe(true)
    }
  })

  it("finds nothing where there is nothing", () => {
    expect(leaks([inspect(Buffer.alloc(1000, "no secret"))], [secret])).toBe(false)
  })
})

/** Those that are not large, for each is printed in every way there is. */
const updates = unusableUpdates.filter(({ reason }) => reason !== "LimitExceeded")

const steps = FastCheck.array(
  FastCheck.oneof(FastCheck.constantFrom("push", "deny", "vanish", "wait" as const), FastCheck.nat(updates.length - 1)),
  { minLength: 1, maxLength: 6 }
)

it.effect.prop(
  "whatever an agent does, no byte of a private key is in a log, an event, an error or a printed value",
  [steps],
  ([steps]) =>
    Effect.gen(function* () {
      const texts: Array<string> = []
      const log = Logger.make((entry) => {
        texts.push(Logger.logfmtLogger.log(entry), Logger.jsonLogger.log(entry), ...printed(entry.message))
      })
      const issuer = yield* DevAuthority.make({ trustDomain: "example.org" })
      const secrets: Array<Uint8Array> = []
      yield* Effect.gen(function* () {
        const { identity, nextCall, agentHealth, events } = yield* ScriptedAgent.make({ initialTimeout: "1 seconds" })
        yield* Effect.forkScoped(
          Stream.runForEach(IdentityProvider.problems(identity), (problem) =>
            Effect.sync(() => texts.push(...printed(problem)))
          )
        )
        let call = yield* nextCall
        for (const step of steps) {
          const context = yield* issuer.context()
          const message = messageOf(context)
          secrets.push(...secretsOf(message))
          texts.push(...printed(message), ...printed(WorkloadMessage.encodeX509SvidResponse(message)))
          if (step === "push") yield* call.push(context)
          if (step === "wait") yield* TestClock.adjust("40 minutes")
          if (step === "deny" || step === "vanish") {
            yield* call.fail(step === "deny" ? "PermissionDenied" : "Unavailable")
            yield* TestClock.adjust("30 seconds")
            call = yield* nextCall
          }
          if (typeof step === "number") {
            const { bytes } = updates[step] ?? (yield* Effect.dieMessage("no such update"))
            const sent = yield* bytes({ authority: issuer, good: message })
            const decoded = WorkloadMessage.decodeX509SvidResponse(sent)
            texts.push(...printed(decoded))
            if (Either.isRight(decoded)) secrets.push(...secretsOf(decoded.right))
            yield* call.pushBytes(Redacted.make(sent))
          }
          yield* TestClock.adjust("1 seconds")
          texts.push(...printed(Either.merge(yield* Effect.either(identity.x509Context))), ...printed(identity))
        }
        texts.push(...printed(yield* events.takeAll), yield* agentHealth)
      }).pipe(
        Effect.scoped,
        Effect.provide(Logger.replace(Logger.defaultLogger, log)),
        Logger.withMinimumLogLevel(LogLevel.All)
      )
      expect(texts.length).toBeGreaterThan(10)
      for (const secret of secrets) expect(secret.length).toBe(32)
      expect(leaks(texts, secrets)).toBe(false)
    }),
  { fastCheck: { numRuns: 10 } }
)
