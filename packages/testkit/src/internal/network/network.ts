/**
 * A dialer without sockets: who answers is decided by the test, and everything that is promised of a connection is kept by
 * the connector above it, as over sockets.
 */
import { PeerMatcher, PeerVerificationError, PeerVerifier, SpiffeId, type X509Context } from "@agentweave/spiffe"
import type { RunFork } from "@agentweave/spiffe/Background"
import { type AuditEvent, Connector, Dialer, TransportError, type Wire } from "@agentweave/transport"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import type { Answerer, OnConnect } from "../../TestConnector.js"
import type { Handler, StreamHandler } from "../../TestMessage.js"
import { ClientEnd, MemoryStream } from "./memoryStream.js"
import { MemoryWire } from "./memoryWire.js"

/** An established connection and its record. */
export interface Link {
  /** The peer closes it. */
  readonly leave: () => void
  /** The network ends. */
  readonly abandon: () => void
  readonly connection: Pick<Wire.Supervision, "id" | "address" | "peer" | "ownId" | "requests">
  readonly openedAt: number
  readonly closed: { readonly at: number; readonly reason: AuditEvent.CloseReason } | undefined
}

export interface Network {
  readonly run: RunFork
  readonly now: () => number
  handler: Handler
  streamHandler: StreamHandler
  onConnect: OnConnect
  attempts: number
  readonly links: Array<Link>
  /** Completed when the network's scope ends: nothing is opened any more, and what is being opened is abandoned. */
  readonly end: Deferred.Deferred<void>
}

/** Closes every connection of the network, and abandons those that are being opened. */
export const end = (network: Network): Effect.Effect<void> =>
  Effect.zipRight(
    Deferred.succeed(network.end, undefined),
    Effect.sync(() => {
      for (const { abandon } of network.links) abandon()
    })
  )

/** Our SVID as the peer has verified it. */
const callerOf = ({ svid }: X509Context.X509Context): PeerVerifier.VerifiedPeer => ({
  spiffeId: svid.spiffeId,
  serialNumber: svid.serialNumber,
  fingerprint: svid.fingerprint,
  bundleGeneration: "",
  notAfter: svid.notAfter,
  chain: svid.certificates
})

/** The certificate of a peer on this network: who it names, until when, and the authority that has issued it. */
interface MadeUp {
  readonly spiffeId: string
  readonly notAfter: number | null
  readonly authority: string
}

/** A made-up certificate is JSON, and no DER begins like that. */
const isMadeUp = (leaf: Uint8Array | undefined): boolean => leaf?.[0] === "{".charCodeAt(0)

/**
 * The certificates the peer presents. A made-up certificate is under the first authority of its domain that we know of: it is distrusted
 * when that authority is withdrawn.
 */
const chainOf = (answerer: Answerer, { bundles }: X509Context.X509Context): ReadonlyArray<Uint8Array> => {
  if (answerer.credentials !== undefined) return answerer.credentials.certificates
  const { notAfter, spiffeId } = answerer
  const [authority] = bundles.bundles.get(SpiffeId.trustDomain(spiffeId))?.authorities ?? []
  const made: MadeUp = {
    spiffeId,
    notAfter: notAfter === undefined || notAfter === Number.POSITIVE_INFINITY ? null : notAfter,
    authority: authority === undefined ? "" : Encoding.encodeHex(authority)
  }
  return [new TextEncoder().encode(JSON.stringify(made))]
}

/** Judges made-up certificates, and refuses for the reasons for which the gate refuses. */
const verifyMadeUp: PeerVerifier.PeerVerifier["verify"] = (input) => {
  const { bundles, matcher, now } = input
  const chain = PeerVerifier.certificates(input)
  const [leaf] = chain
  const made: MadeUp | undefined = leaf === undefined ? undefined : JSON.parse(new TextDecoder().decode(leaf))
  const refuse = (reason: PeerVerificationError.PeerVerificationReason, description: string) =>
    Either.left(
      new PeerVerificationError.PeerVerificationError({
        expectedId: PeerMatcher.describe(matcher),
        actualId: made?.spiffeId ?? null,
        reason,
        description
      })
    )
  if (made === undefined) return refuse("NoCertificate", "expected a certificate, the peer presented none")
  const id = SpiffeId.parse(made.spiffeId)
  if (Either.isLeft(id)) return refuse("InvalidSpiffeId", id.left.message)
  const domain = SpiffeId.trustDomain(id.right)
  const bundle = bundles.bundles.get(domain)
  if (bundle === undefined) return refuse("NoBundle", `expected a bundle of ${domain}, got none`)
  if (!bundle.authorities.some((authority) => Encoding.encodeHex(authority) === made.authority)) {
    return refuse("UntrustedChain", "expected an authority of the bundle, got another")
  }
  const notAfter = made.notAfter ?? Number.POSITIVE_INFINITY
  if (now >= notAfter) return refuse("Expired", "expected a certificate within its dates, got an expired one")
  if (!PeerMatcher.matches(matcher, id.right)) {
    return refuse("UnexpectedPeer", "expected an ID the matcher accepts, got another")
  }
  return Either.right({
    spiffeId: id.right,
    serialNumber: "01",
    fingerprint: "00".repeat(32),
    bundleGeneration: bundle.generation,
    notAfter,
    chain
  })
}

/** The gate, and for certificates that are made up what stands in its place. */
const makeVerifier = (): PeerVerifier.PeerVerifier => {
  const gate = PeerVerifier.make()
  return {
    verify: (input) =>
      isMadeUp("leaf" in input.chain ? input.chain.leaf : input.chain[0]) ? verifyMadeUp(input) : gate.verify(input)
  }
}

const scopeClosed = ({ address, matcher }: Wire.DialOptions): TransportError.ScopeClosedError =>
  new TransportError.ScopeClosedError({
    reason: "Connector",
    target: `${PeerMatcher.describe(matcher)} at ${address}`
  })

/** The peer that a connection meets. */
const meet = (network: Network, options: Wire.DialOptions): Effect.Effect<Answerer, TransportError.TransportError> =>
  // The end first: of two that are done at once the first wins.
  Effect.raceFirst(
    Effect.flatMap(Deferred.await(network.end), () => scopeClosed(options)),
    Effect.suspend(() => network.onConnect({ ...options, onClose: () => {} }))
  )

/** The peer of a connection, for both of its uses. */
const endsOf = (network: Network, answerer: Answerer, { config, identity }: Wire.DialOptions) => ({
  certificates: chainOf(answerer, identity),
  tlsVersion: config.tlsMaxVersion,
  certificateRequested: answerer.asksForCertificate ?? true,
  isAuthorized: answerer.authorize === undefined || PeerMatcher.matches(answerer.authorize, identity.svid.spiffeId),
  caller: callerOf(identity),
  run: network.run
})

const dialer = (network: Network): Dialer.Dialer => ({
  verifier: makeVerifier(),
  dial: (options) =>
    Effect.map(
      meet(network, options),
      (answerer) =>
        new MemoryWire({
          ...endsOf(network, answerer, options),
          handler: () => network.handler,
          onEstablished: (wire, connection) => {
            let closed: Link["closed"]
            network.links.push({
              leave: wire.leave,
              abandon: () => connection.abandon("Shutdown"),
              connection,
              openedAt: network.now(),
              get closed() {
                return closed
              }
            })
            return (reason) => {
              closed = { at: network.now(), reason }
            }
          }
        })
    ),
  dialStream: (options) =>
    Effect.map(
      meet(network, options),
      (answerer) =>
        new MemoryStream({
          ...endsOf(network, answerer, options),
          protocol: options.protocols?.[0],
          handler: () => network.streamHandler
        })
    )
})

/** Opens a stream, and lets the peer answer once it is established. */
const connectStream = (
  network: Network,
  open: Context.Tag.Service<Connector.Connector>["connectStream"]
): typeof open =>
  Effect.fnUntraced(function* (options) {
    let closed: Link["closed"]
    const connection = yield* open({
      ...options,
      onClose: (reason) => {
        closed = { at: network.now(), reason }
        options.onClose(reason)
      }
    })
    const { address, id, ownId, peer, stream } = connection
    if (!(stream instanceof ClientEnd)) return connection
    const { wire } = stream
    network.links.push({
      leave: wire.leave,
      abandon: wire.leave,
      connection: { id, address, peer, ownId, requests: 0 },
      openedAt: network.now(),
      get closed() {
        return closed
      }
    })
    wire.serve(connection)
    return connection
  })

/** The connector of this network; it counts what it is asked for. */
export const layer = (network: Network) =>
  Layer.map(Dialer.layer(Effect.succeed(dialer(network))), (context) => {
    const { connect, connectStream: open } = Context.get(context, Connector.Connector)
    const count = Effect.sync(() => {
      network.attempts++
    })
    const openStream = connectStream(network, open)
    return Context.make(Connector.Connector, {
      connect: (options) => Effect.zipRight(count, connect(options)),
      connectStream: (options) => Effect.zipRight(count, openStream(options))
    })
  })
