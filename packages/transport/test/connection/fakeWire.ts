import { IdentityError } from "@agentweave/spiffe/IdentityError"
import * as IdentityProvider from "@agentweave/spiffe/IdentityProvider"
import * as PeerMatcher from "@agentweave/spiffe/PeerMatcher"
import { PeerVerificationError } from "@agentweave/spiffe/PeerVerificationError"
import { certificates, type PeerVerifier, type VerifiedPeer, type VerifyInput } from "@agentweave/spiffe/PeerVerifier"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { HttpClientResponse } from "@effect/platform"
import { Deferred, Duration, Effect, Either, Exit, Stream, SubscriptionRef } from "effect"
import type { AuditEvent, Connector, TransportError, Wire } from "../../src/index.js"

/** A made-up certificate: who it names, by which CA, and until when. No cryptography, so that thousands fit in a second. */
export interface Certificate {
  readonly id: SpiffeId.SpiffeId
  readonly ca: string
  readonly notAfter: number
}

const ids = new Map<string, SpiffeId.SpiffeId>()

const idOf = (path: string): SpiffeId.SpiffeId => {
  const id = ids.get(path) ?? SpiffeId.make(`spiffe://example.org/${path}`)
  ids.set(path, id)
  return id
}

export const certificate = (path: string, ca: string, notAfter = Number.POSITIVE_INFINITY): Certificate => ({
  id: idOf(path),
  ca,
  notAfter
})

const encoded = new Map<string, { readonly made: Certificate; readonly der: Uint8Array }>()

const encode = (made: Certificate): Uint8Array => {
  const text = `${made.id} ${made.ca} ${made.notAfter}`
  const known = encoded.get(text) ?? { made, der: new TextEncoder().encode(text) }
  encoded.set(text, known)
  return known.der
}

const decode = (der: Uint8Array): Certificate => {
  const known = encoded.get(new TextDecoder().decode(der))
  if (known === undefined) throw new Error("expected a certificate of this file")
  return known.made
}

/** An identity of ours: its certificate, and the CAs that our bundle holds. */
export const context = (own: Certificate, ...authorities: ReadonlyArray<string>): X509Context => {
  const svid = {
    spiffeId: own.id,
    serialNumber: "01",
    fingerprint: `${own.id} ${own.ca}`,
    notBefore: 0,
    notAfter: own.notAfter,
    certificates: [encode(own)]
  }
  const domain = SpiffeId.trustDomain(own.id)
  const bundles = {
    bundles: new Map([[domain, { generation: authorities.join(" ") }]]),
    generation: authorities.join(" ")
  }
  return { svid, svids: [svid], bundles } as unknown as X509Context
}

/** Knows the made-up certificates, and refuses as the gate does. */
export const verifier: PeerVerifier = {
  verify: (input: VerifyInput): Either.Either<VerifiedPeer, PeerVerificationError> => {
    const chain = certificates(input)
    const [leaf] = chain
    const made = leaf === undefined ? undefined : decode(leaf)
    const refuse = (reason: PeerVerificationError["reason"]) =>
      Either.left(
        new PeerVerificationError({
          expectedId: PeerMatcher.describe(input.matcher),
          actualId: made?.id ?? null,
          reason,
          description: "as the test has it"
        })
      )
    if (made === undefined) return refuse("NoCertificate")
    const bundle = input.bundles.bundles.get(SpiffeId.trustDomain(made.id))
    if (bundle === undefined) return refuse("NoBundle")
    if (!bundle.generation.split(" ").includes(made.ca)) return refuse("UntrustedChain")
    if (input.now > made.notAfter) return refuse("Expired")
    if (!PeerMatcher.matches(input.matcher, made.id)) return refuse("UnexpectedPeer")
    return Either.right({
      spiffeId: made.id,
      serialNumber: "01",
      fingerprint: `${made.id} ${made.ca}`,
      bundleGeneration: bundle.generation,
      notAfter: made.notAfter,
      chain
    })
  }
}

/** An identity that a test rotates, takes away and gives back. */
export class FakeIdentity {
  readonly provider: IdentityProvider.IdentityProvider["Type"]
  /** The scope of its source closes. */
  readonly end: Effect.Effect<void>
  private readonly state: SubscriptionRef.SubscriptionRef<Exit.Exit<X509Context, IdentityError>>

  private constructor(
    state: SubscriptionRef.SubscriptionRef<Exit.Exit<X509Context, IdentityError>>,
    ended: Deferred.Deferred<void>
  ) {
    this.state = state
    this.end = Effect.asVoid(Deferred.succeed(ended, undefined))
    const x509Context = Effect.flatten(SubscriptionRef.get(state))
    const changes = Stream.mapEffect(state.changes, (exit) => exit)
    this.provider = IdentityProvider.until({ x509Context, changes }, ended)
  }

  static make(initial: X509Context): Effect.Effect<FakeIdentity> {
    return Effect.zipWith(
      SubscriptionRef.make<Exit.Exit<X509Context, IdentityError>>(Exit.succeed(initial)),
      Deferred.make<void>(),
      (state, ended) => new FakeIdentity(state, ended)
    )
  }

  set(next: X509Context): Effect.Effect<void> {
    return SubscriptionRef.set(this.state, Exit.succeed(next))
  }

  fail(reason: IdentityError["reason"]): Effect.Effect<void> {
    return SubscriptionRef.set(this.state, Exit.fail(new IdentityError({ reason, description: "as the test has it" })))
  }
}

export interface FakeExchange {
  readonly exchange: Connector.Exchange
  readonly resume: (result: Effect.Effect<HttpClientResponse.HttpClientResponse, Connector.ExchangeError>) => void
  /** It ends, with an error or whole. */
  readonly settle: (error?: string) => void
}

/** A connection without a socket: what a test has it do. */
export class FakeWire implements Wire.HttpWire {
  readonly tls: Wire.TlsDetails
  isOpen = true
  bytesRead = 100
  bytesWritten = 100
  /** Stays on the wire after it was destroyed, until `leave`. */
  lingers = false
  timedOut = 0
  current: FakeExchange | undefined
  supervision: Wire.Supervision | undefined
  private readonly made: Certificate
  private listener: ((reason: "PeerClosed" | "Error") => void) | undefined

  constructor(made: Certificate, tls: Partial<Wire.TlsDetails> = {}) {
    this.made = made
    this.tls = {
      version: "TLSv1.3",
      cipher: "none",
      cipherSuite: "none",
      resumed: false,
      certificateRequested: true,
      ...tls
    }
  }

  readonly leaf = () => encode(this.made)
  readonly chain = () => [encode(this.made)]

  readonly destroy = () => {
    if (!this.isOpen) return
    this.isOpen = false
    if (!this.lingers) this.leave("Error")
  }

  readonly onGone = (listener: (reason: "PeerClosed" | "Error") => void) => {
    this.listener = listener
  }

  /** It is off the wire: what was in flight fails. */
  leave(reason: "PeerClosed" | "Error"): void {
    this.isOpen = false
    this.current?.settle("ConnectionError")
    const { listener } = this
    this.listener = undefined
    listener?.(reason)
  }

  readonly carry = (supervision: Wire.Supervision): Wire.HttpCarrier => {
    this.supervision = supervision
    return {
      start: (exchange, resume) => {
        const started: FakeExchange = {
          exchange,
          resume,
          settle: (error) => {
            if (this.current !== started) return
            this.current = undefined
            supervision.setDeadline(Number.POSITIVE_INFINITY)
            exchange.onSettled(error)
          }
        }
        this.current = started
        supervision.setDeadline(supervision.now() + Duration.toMillis(supervision.config.timeout))
        return () => started.settle("Interrupted")
      },
      onTimeout: () => {
        this.timedOut++
        this.current?.settle("TimeoutError")
        supervision.abandon("Aborted")
      },
      onClosed: () => {}
    }
  }
}

/** A record of events, in order. */
export class Recorded {
  readonly events: Array<AuditEvent.AuditEvent> = []
  readonly log = {
    unsafeRecord: (event: AuditEvent.AuditEvent) => {
      this.events.push(event)
      return undefined
    }
  }

  get tags(): ReadonlyArray<string> {
    return this.events.map((event) => {
      switch (event._tag) {
        case "ConnectionRefused":
          return `${event._tag} ${event.error} ${event.reason}`
        case "ConnectionClosed":
          return `${event._tag} ${event.reason}`
        case "RequestEnded":
          return `${event._tag} ${event.error ?? "whole"}`
        default:
          return event._tag
      }
    })
  }
}

export type Dialed = (options: Wire.DialOptions) => Effect.Effect<Wire.HttpWire, TransportError.TransportError>
