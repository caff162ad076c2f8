import {
  type IdentityError,
  IdentityProvider,
  TrustDomain,
  X509Bundle,
  type X509Context,
  X509Svid
} from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { type AuditEvent, AuditLog, IdentityMonitor } from "@agentweave/transport"
import { Duration, Effect, Either, Layer, Redacted, TestClock } from "effect"
import type { IdentityFileEvent } from "../src/IdentityFileEvent.js"
import { make } from "../src/internal/files/identityRotation.js"
import type { Sources } from "../src/internal/files/parts.js"
import { MemoryFiles } from "./identityMemoryFiles.js"

export const certificate = "/id/svid.pem"
export const key = "/id/svid_key.pem"
export const bundle = "/id/bundle.pem"

export const partner = TrustDomain.make("partner.example")

export const sources: Sources = {
  certificate,
  key,
  bundle,
  federatedBundles: new Map(),
  trustDomain: undefined
}

export const federated: Sources = { ...sources, federatedBundles: new Map([[partner, "/id/partner.json"]]) }

export const keyPem = (svid: X509Svid.X509Svid): string => Redacted.value(X509Svid.privateKeyPem(svid))

/** Writes without events; the files of the arguments only. */
export const put = (
  memory: MemoryFiles,
  parts: { readonly svid?: X509Svid.X509Svid; readonly bundle?: X509Bundle.X509Bundle }
): void => {
  if (parts.svid !== undefined) {
    memory.set(certificate, X509Svid.certificatesPem(parts.svid))
    memory.set(key, keyPem(parts.svid))
  }
  if (parts.bundle !== undefined) memory.set(bundle, X509Bundle.toPem(parts.bundle))
}

/** An authority and two of its SVIDs: minted once, at the time every test begins at. */
const minted = Effect.runSync(
  Effect.cached(
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      const [first, second] = yield* Effect.all([authority.issue({ path: "/api" }), authority.issue({ path: "/api" })])
      return { authority, first, second }
    })
  )
)

/** These, and a file system with the first SVID. */
export const setting = Effect.map(minted, ({ authority, first, second }) => {
  const memory = new MemoryFiles()
  put(memory, { svid: first, bundle: authority.bundle })
  return { authority, first, second, memory }
})

/** A provider over the files, and all that it reports. */
export const provide = Effect.fnUntraced(function* (memory: MemoryFiles, from: Sources = sources) {
  const events: Array<IdentityFileEvent> = []
  const audit: Array<AuditEvent.AuditEvent> = []
  const provider = yield* make(memory.files, {
    sources: from,
    debounce: Duration.millis(50),
    pollInterval: Duration.seconds(5),
    onEvent: (event) => Effect.sync(() => events.push(event))
  })
  yield* Layer.build(
    IdentityMonitor.layer({ interval: "1 day" }).pipe(
      Layer.provide(Layer.succeed(IdentityProvider.IdentityProvider, provider)),
      Layer.provide(AuditLog.layerMemory(audit))
    )
  )
  // The look after the watchers were opened.
  yield* TestClock.adjust(0)
  const serving = Effect.map(provider.x509Context, ({ svid }) => svid.fingerprint)
  const tags = () => events.map(({ _tag }) => _tag)
  const rejections = () =>
    events.flatMap((event) => (event._tag === "IdentityRejected" ? [`${event.reason}: ${event.description}`] : []))
  const problems = () =>
    audit.flatMap((event) =>
      event._tag === "IdentityProblem" ? [`${event.problem} ${event.reason}: ${event.description}`] : []
    )
  return { provider, events, serving, tags, rejections, audit, problems }
})

export const poll = TestClock.adjust("5 seconds")
export const rest = TestClock.adjust("50 millis")

export const failure = (
  effect: Effect.Effect<X509Context.X509Context, IdentityError.IdentityError>
): Effect.Effect<string> =>
  Effect.map(Effect.either(effect), (result) =>
    Either.match(result, { onLeft: (error) => `${error.reason}: ${error.description}`, onRight: () => "no failure" })
  )
