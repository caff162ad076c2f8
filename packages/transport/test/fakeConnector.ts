import * as IdentityProvider from "@agentweave/spiffe/IdentityProvider"
import type { VerifiedPeer } from "@agentweave/spiffe/PeerVerifier"
import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import type { X509Context } from "@agentweave/spiffe/X509Context"
import type { AuditEvent, ConnectorResponse, TransportError } from "@agentweave/transport"
import { Connector, TransportError as Errors, ConnectorResponse as Responses } from "@agentweave/transport"
import { Headers, type HttpClientResponse } from "@effect/platform"
import { Effect, Layer } from "effect"

/** How the fake world behaves. Everything can be changed while it runs. */
export interface Behaviour {
  /** What an attempt does before it is established: sleeps, fails. */
  connect: (options: Connector.ConnectOptions) => Effect.Effect<void, TransportError.TransportError>
  /** Sees a connection before the one who asked for it does. */
  onCreated: (connection: FakeConnection) => void
  /** What the peer does with a request. */
  serve: (exchange: FakeExchange) => void
  /** Connections that we close stay on the wire until `FakeWire.drain`. */
  lingers: boolean
  /** A whole exchange settles a microtask later, as it does over a real socket. */
  settlesLater: boolean
}

/** Answers at once, with the request's path as the body. */
export const answer = (exchange: FakeExchange): void => exchange.respond(exchange.path)

/** One request that reached the peer. */
export class FakeExchange {
  readonly connection: FakeConnection
  readonly path: string
  readonly exchange: Connector.Exchange
  aborted = false
  settled = 0
  private whole = false
  private readonly resume: (
    result: Effect.Effect<HttpClientResponse.HttpClientResponse, Connector.ExchangeError>
  ) => void
  private sink: ConnectorResponse.ResponseSink | undefined

  constructor(
    connection: FakeConnection,
    exchange: Connector.Exchange,
    resume: (result: Effect.Effect<HttpClientResponse.HttpClientResponse, Connector.ExchangeError>) => void
  ) {
    this.connection = connection
    this.exchange = exchange
    this.path = exchange.path
    this.resume = resume
  }

  /** Headers and the whole body. */
  respond(body = "", status = 200, headers: Readonly<Record<string, string>> = {}): void {
    this.start(status, headers)
    this.end(body)
  }

  /** The headers; the body is still to come. */
  start(status = 200, headers: Readonly<Record<string, string>> = {}): void {
    const sink = Responses.makeSink({ resume: () => {}, abort: () => this.abort() })
    this.sink = sink
    this.resume(
      Effect.sync(() =>
        Responses.makeResponse(sink, {
          request: this.exchange.request,
          status,
          headers: () => Headers.fromInput(headers),
          setCookie: () => [],
          remoteAddress: undefined
        })
      )
    )
  }

  push(text: string): void {
    this.sink?.push(new TextEncoder().encode(text))
  }

  end(rest = ""): void {
    if (rest !== "") this.push(rest)
    this.whole = true
    this.sink?.end()
    if (this.connection.wire.behaviour.settlesLater) queueMicrotask(() => this.settle())
    else this.settle()
  }

  /** The connection breaks under the request. */
  breakOff(): void {
    const error = new Errors.ConnectionError({
      reason: this.sink === undefined ? "Closed" : "Lost",
      outcome: "Unknown",
      address: this.connection.address,
      description: "expected a response, the connection broke"
    })
    this.connection.close("Error")
    this.settle()
    if (this.sink === undefined) this.resume(Effect.fail(error))
    else this.sink.fail(error)
  }

  abort(): void {
    if (this.whole || this.settled > 0 || this.aborted) return
    this.aborted = true
    this.connection.close("Aborted")
    this.settle()
  }

  private settle(): void {
    this.settled++
    this.connection.settle(this)
    this.exchange.onSettled()
  }
}

/** One connection to a peer. */
export class FakeConnection implements Connector.Connection {
  readonly id: string
  readonly ownId = ownId
  readonly peer: VerifiedPeer
  readonly address: string
  readonly host: string
  readonly wire: FakeWire
  readonly exchanges: Array<FakeExchange> = []
  current: FakeExchange | undefined = undefined
  closed: AuditEvent.CloseReason | undefined = undefined
  private retired: AuditEvent.CloseReason | undefined = undefined
  private readonly options: Connector.ConnectOptions

  constructor(wire: FakeWire, options: Connector.ConnectOptions, id: string) {
    this.wire = wire
    this.options = options
    this.id = id
    this.host = options.host
    this.address = `${options.host}:${options.port}`
    this.peer = {
      spiffeId: SpiffeId.make("spiffe://example.org/fake"),
      serialNumber: "01",
      fingerprint: id,
      bundleGeneration: "1",
      notAfter: Number.POSITIVE_INFINITY,
      chain: []
    }
  }

  isUsable(): boolean {
    return this.closed === undefined && this.retired === undefined && this.current === undefined
  }

  unsafeStart(
    exchange: Connector.Exchange,
    resume: (result: Effect.Effect<HttpClientResponse.HttpClientResponse, Connector.ExchangeError>) => void
  ): () => void {
    if (!this.isUsable()) this.wire.faults.push(`${this.id}: a request on a connection that is not usable`)
    const made = new FakeExchange(this, exchange, resume)
    this.current = made
    this.exchanges.push(made)
    this.wire.behaviour.serve(made)
    return () => made.abort()
  }

  unsafeRetire(reason: AuditEvent.CloseReason): void {
    this.retired ??= reason
    if (this.current === undefined) this.close(reason)
  }

  settle(exchange: FakeExchange): void {
    if (exchange.settled > 1) this.wire.faults.push(`${this.id}: settled twice`)
    this.current = undefined
    if (this.retired !== undefined) this.close(this.retired)
  }

  /** The connection ends: by the peer, a fault, or our own doing. */
  close(reason: AuditEvent.CloseReason = "PeerClosed"): void {
    if (this.closed !== undefined) return
    this.closed = reason
    const leave = () => {
      this.wire.count(this.host, -1)
      this.options.onClose(reason)
    }
    if (this.wire.behaviour.lingers && reason !== "PeerClosed" && reason !== "Error") this.wire.lingering.push(leave)
    else leave()
  }
}

/** All that happened on the fake network. */
export class FakeWire {
  behaviour: Behaviour = {
    connect: () => Effect.void,
    onCreated: () => {},
    serve: answer,
    lingers: false,
    settlesLater: false
  }
  readonly connections: Array<FakeConnection> = []
  readonly attempts: Array<string> = []
  readonly abandoned: Array<string> = []
  /** What a connector's user must not do, and did. */
  readonly faults: Array<string> = []
  readonly lingering: Array<() => void> = []
  /** Connections being opened or not yet closed, now and at most. */
  now = 0
  peak = 0
  private readonly nowByHost = new Map<string, number>()
  /** The most there ever were to one host. */
  peakPerHost = 0
  /** Connections ever made. */
  made = 0
  /** Connections whose scope has closed. */
  released = 0

  count(host: string, change: number): void {
    this.now += change
    this.peak = Math.max(this.peak, this.now)
    const here = (this.nowByHost.get(host) ?? 0) + change
    this.nowByHost.set(host, here)
    this.peakPerHost = Math.max(this.peakPerHost, here)
  }

  /** Connections that were closed leave the wire. */
  drain(): void {
    for (const leave of this.lingering.splice(0)) leave()
  }

  get open(): ReadonlyArray<FakeConnection> {
    return this.connections.filter((connection) => connection.closed === undefined)
  }

  get exchanges(): ReadonlyArray<FakeExchange> {
    return this.connections.flatMap((connection) => connection.exchanges)
  }

  readonly connect: Connector.Connector["Type"]["connect"] = (options) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        this.attempts.push(options.host)
        this.count(options.host, 1)
        return Effect.onError(restore(Effect.suspend(() => this.behaviour.connect(options))), (cause) =>
          Effect.sync(() => {
            this.count(options.host, -1)
            if (cause._tag !== "Fail") this.abandoned.push(options.host)
          })
        ).pipe(
          Effect.map(() => {
            const connection = new FakeConnection(this, options, `c${++this.made}`)
            this.connections.push(connection)
            this.behaviour.onCreated(connection)
            return connection
          }),
          Effect.tap((connection) =>
            Effect.addFinalizer(() =>
              Effect.sync(() => {
                this.released++
                if (connection.closed !== undefined) return
                connection.close("Shutdown")
                connection.current?.breakOff()
              })
            )
          )
        )
      })
    )

  readonly layer: Layer.Layer<Connector.Connector> = Layer.sync(Connector.Connector, () => ({
    connect: this.connect,
    connectStream: () => Effect.dieMessage("expected requests only")
  }))
}

export const ownId = SpiffeId.make("spiffe://example.org/me")

/** An identity that nobody looks into. */
export const identity: Layer.Layer<IdentityProvider.IdentityProvider> = Layer.suspend(() => {
  const svid = { spiffeId: ownId } as X509Context["svid"]
  return IdentityProvider.layerStatic({ svid, svids: [svid], bundles: new Map() as never })
})

/** A refused attempt. */
export const refused = (host = "nowhere"): TransportError.ConnectionError =>
  new Errors.ConnectionError({
    reason: "Refused",
    outcome: "NotSent",
    address: host,
    description: "expected an open port"
  })
