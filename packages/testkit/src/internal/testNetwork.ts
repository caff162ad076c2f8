/**
 * Opens connections without a wire, with the checks and the audit events of real ones.
 */
import { isIPv6 } from "node:net"
import {
  type IdentityProvider,
  PeerMatcher,
  PeerVerificationError,
  type PeerVerifier,
  type X509Context,
  X509Svid
} from "@agentweave/spiffe"
import { type AuditEvent, type AuditLog, type Connector, RequestTelemetry, TransportError } from "@agentweave/transport"
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Answerer, OnConnect } from "../TestConnector.js"
import type { Handler } from "../TestMessage.js"
import type { RunFork } from "./background.js"
import { TestConnection } from "./testConnection.js"

/** An established connection and its record. */
export interface Link {
  readonly connection: TestConnection
  readonly openedAt: number
  closed: { readonly at: number; readonly reason: AuditEvent.CloseReason } | undefined
}

export interface Network {
  readonly run: RunFork
  readonly clock: Clock.Clock
  readonly verifier: PeerVerifier.PeerVerifier
  handler: Handler
  onConnect: OnConnect
  attempts: number
  readonly links: Array<Link>
  readonly shells: Set<Shell>
  hasEnded: boolean
}

type ConnectError = TransportError.TransportError | AuditLog.AuditError

/** What was opened, or is being opened, through one built layer. */
interface Shell {
  readonly attempts: Set<Fiber.RuntimeFiber<Connector.Connection, ConnectError>>
  readonly live: Set<TestConnection>
  hasEnded: boolean
}

/** Our SVID as the peer has verified it. */
const callerOf = ({ svid }: X509Context.X509Context): PeerVerifier.VerifiedPeer => ({
  spiffeId: svid.spiffeId,
  serialNumber: svid.serialNumber,
  fingerprint: svid.fingerprint,
  bundleGeneration: "",
  notAfter: svid.notAfter,
  chain: svid.certificates
})

const peerOf = (
  { notAfter = Number.POSITIVE_INFINITY, spiffeId }: Answerer,
  context: X509Context.X509Context
): PeerVerifier.VerifiedPeer => ({
  spiffeId,
  serialNumber: "01",
  fingerprint: "00".repeat(32),
  bundleGeneration: context.bundles.generation,
  notAfter,
  chain: []
})

const refused = (
  options: Connector.ConnectOptions,
  reason: PeerVerificationError.PeerVerificationReason,
  actualId: string | null,
  description: string
) =>
  new PeerVerificationError.PeerVerificationError({
    expectedId: PeerMatcher.describe(options.matcher),
    actualId,
    reason,
    description
  })

/** Everything up to the verified peer. */
const attempt = Effect.fnUntraced(function* (
  network: Network,
  identity: Context.Tag.Service<IdentityProvider.IdentityProvider>,
  options: Connector.ConnectOptions
) {
  const { matcher } = options
  const context = yield* identity.x509Context
  yield* X509Svid.validate(context.svid, {
    bundles: context.bundles,
    now: network.clock.unsafeCurrentTimeMillis(),
    verifier: network.verifier,
    purposes: ["ClientAuth"]
  })
  const domains = Array.from(PeerMatcher.trustDomains(matcher))
  if (!domains.some((domain) => context.bundles.bundles.has(domain))) {
    return yield* refused(options, "NoBundle", null, `expected a bundle of ${domains.join(" or ")}, got none`)
  }
  const answerer = yield* network.onConnect(options)
  if (!PeerMatcher.matches(matcher, answerer.spiffeId)) {
    return yield* refused(
      options,
      "UnexpectedPeer",
      answerer.spiffeId,
      "expected an ID the matcher accepts, got another"
    )
  }
  const peer = peerOf(answerer, context)
  if (peer.notAfter <= network.clock.unsafeCurrentTimeMillis()) {
    return yield* refused(
      options,
      "Expired",
      peer.spiffeId,
      "expected a certificate within its dates, got an expired one"
    )
  }
  return { context, peer }
})

const refusal = (cause: Cause.Cause<TransportError.TransportError>) =>
  Option.match(Cause.failureOption(cause), {
    onNone: () => ({
      actualId: null,
      error: "Interrupted",
      reason: "Interrupted",
      description: "the attempt was given up"
    }),
    onSome: (error) => ({
      actualId: error._tag === "PeerVerificationError" ? error.actualId : null,
      error: error._tag,
      reason:
        error._tag === "TimeoutError" ? error.phase : error._tag === "InvalidSpiffeIdError" ? error.rule : error.reason,
      description: error.message
    })
  })

const addressOf = ({ host, port }: Connector.ConnectOptions): string =>
  isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`

/** What a connection is asked for in vain for when the layer, or the network, has ended. */
const ended = (options: Connector.ConnectOptions): TransportError.ScopeClosedError =>
  new TransportError.ScopeClosedError({
    reason: "Connector",
    target: `${PeerMatcher.describe(options.matcher)} at ${addressOf(options)}`
  })

/** Nobody new; what is being opened is abandoned, what is open is closed. */
const end = (network: Network, shell: Shell): Effect.Effect<void> =>
  Effect.suspend(() => {
    shell.hasEnded = true
    network.shells.delete(shell)
    return Effect.zipRight(
      Fiber.interruptAll(Array.from(shell.attempts)),
      Effect.sync(() => {
        for (const connection of Array.from(shell.live)) connection.breakOff("Shutdown")
      })
    )
  })

export const endAll = (network: Network): Effect.Effect<void> =>
  Effect.suspend(() => {
    network.hasEnded = true
    return Effect.forEach(Array.from(network.shells), (shell) => end(network, shell), { discard: true })
  })

/** Connections of one network, until the scope closes. */
export const serve = Effect.fnUntraced(function* (
  network: Network,
  identity: Context.Tag.Service<IdentityProvider.IdentityProvider>,
  record: RequestTelemetry.Options["record"]
): Effect.fn.Return<Context.Tag.Service<Connector.Connector>, never, Scope.Scope> {
  const shell: Shell = { attempts: new Set(), live: new Set(), hasEnded: network.hasEnded }
  network.shells.add(shell)
  yield* Effect.addFinalizer(() => end(network, shell))
  return {
    connect: (options) =>
      Effect.uninterruptibleMask((restore) => {
        if (shell.hasEnded) return Effect.fail(ended(options))
        // A fiber of its own, so that the end of the layer can abandon it.
        return Effect.flatMap(Effect.fork(open(network, shell, identity, record, options)), (fiber) => {
          shell.attempts.add(fiber)
          fiber.addObserver(() => shell.attempts.delete(fiber))
          return Effect.onInterrupt(restore(Fiber.join(fiber)), () => Fiber.interrupt(fiber))
        })
      })
  }
})

/** One attempt from its first event to its last. Interruption abandons it, and reaches no other part of this. */
const open = (
  network: Network,
  shell: Shell,
  identity: Context.Tag.Service<IdentityProvider.IdentityProvider>,
  record: RequestTelemetry.Options["record"],
  options: Connector.ConnectOptions
): Effect.Effect<Connector.Connection, ConnectError, Scope.Scope> =>
  Effect.uninterruptible(
    Effect.gen(function* () {
      const { config, matcher, onClose } = options
      const now = () => network.clock.unsafeCurrentTimeMillis()
      const address = addressOf(options)
      const expectedId = PeerMatcher.describe(matcher)
      const startedAt = now()
      const common = { side: "Client" as const, connectionId: `c${++network.attempts}`, address }
      const unrecorded = record({ _tag: "ConnectionAttempted", time: startedAt, ...common, expectedId })
      if (unrecorded !== undefined) return yield* unrecorded

      // Interruptible, so that the limit holds in the uninterruptible region of a caller too.
      const limited = Effect.timeoutFail(Effect.interruptible(attempt(network, identity, options)), {
        duration: config.connectTimeout,
        onTimeout: () =>
          new TransportError.TimeoutError({
            phase: "Connect",
            outcome: "NotSent",
            limit: config.connectTimeout,
            target: `${expectedId} at ${address}`
          })
      })
      const exit = yield* Effect.exit(Effect.interruptible(limited))
      const openedAt = now()
      const durationMillis = openedAt - startedAt
      if (exit._tag === "Failure") {
        const isAbandoned = shell.hasEnded && Cause.isInterruptedOnly(exit.cause)
        const cause = isAbandoned ? Cause.fail(ended(options)) : exit.cause
        const event = { time: openedAt, ...common, expectedId, ...refusal(cause), durationMillis }
        const error = record({ _tag: "ConnectionRefused", ...event })
        return yield* error ?? Effect.failCause(cause)
      }

      const { context, peer } = exit.value
      const caller = callerOf(context)
      let ending: Fiber.RuntimeFiber<void> | undefined
      const connection = new TestConnection({
        id: common.connectionId,
        address,
        peer,
        caller,
        timeout: config.timeout,
        bodyTimeout: config.bodyTimeout ?? config.timeout,
        maxResponseSize: config.maxResponseSize,
        handler: () => network.handler,
        run: network.run,
        onClosed: ({ bytesRead, bytesWritten, requests }, reason) => {
          const at = now()
          link.closed = { at, reason }
          shell.live.delete(connection)
          ending?.unsafeInterruptAsFork(FiberId.none)
          const counts = { requests, bytesRead, bytesWritten, durationMillis: at - openedAt }
          record({
            _tag: "ConnectionClosed",
            time: at,
            ...common,
            peerId: peer.spiffeId,
            reason,
            ...counts
          })
          onClose(reason)
        }
      })
      const link: Link = { connection, openedAt, closed: undefined }
      network.links.push(link)
      shell.live.add(connection)
      yield* Effect.addFinalizer(() => Effect.sync(() => connection.breakOff("Shutdown")))

      const expiry = Math.min(peer.notAfter, caller.notAfter) - openedAt
      const age = config.maxConnectionAge === undefined ? expiry : Duration.toMillis(config.maxConnectionAge)
      ending = network.run(
        Effect.delay(
          Effect.sync(() => connection.unsafeRetire(age < expiry ? "Age" : "Expiry")),
          Math.min(age, expiry)
        )
      )
      const notEstablished = record({
        _tag: "ConnectionEstablished",
        time: openedAt,
        ...common,
        peerId: peer.spiffeId,
        peerSerialNumber: peer.serialNumber,
        peerFingerprint: peer.fingerprint,
        ownId: caller.spiffeId,
        ownSerialNumber: caller.serialNumber,
        ownFingerprint: caller.fingerprint,
        bundleGeneration: peer.bundleGeneration,
        tlsVersion: config.tlsMaxVersion,
        cipher: "in memory",
        durationMillis
      })
      if (notEstablished !== undefined) {
        connection.close("Error")
        return yield* notEstablished
      }
      return RequestTelemetry.observe(connection, { record, now })
    })
  )
