/** The sums of the audit events of a process, in bounded memory: told of each event, read by the snapshots. */
import type { AuditEvent } from "@agentweave/transport/AuditEvent"
import { isServerErrorStatus } from "@agentweave/transport/RequestTelemetry"
import type { Connection, Traffic } from "../Snapshot.js"
import { bounded } from "./boundedEvent.js"
import { Ring } from "./ring.js"
import { TrafficWindow } from "./trafficWindow.js"

type EventOf<Tag extends AuditEvent["_tag"]> = Extract<AuditEvent, { readonly _tag: Tag }>

/** Peers that are kept apart; events of further ones count in the sums alone. */
export const maxPeers = 256
/** Open connections that are kept one by one. */
export const maxConnections = 1_024
const maxEvents = 100
const maxRequests = 50
const maxRefusals = 50
const maxHistory = 32
/** Five minutes in all, and of each peer. */
const wholeWindow = { slots: 150, millis: 2_000 }
const peerWindow = { slots: 30, millis: 10_000 }

export type OpenConnection = { -readonly [Field in keyof Connection]: Connection[Field] }

export class PeerActivity {
  readonly id: string
  lastSeen = 0
  open = 0
  readonly connections = new Set<OpenConnection>()
  outgoing: TrafficWindow | undefined = undefined
  incoming: TrafficWindow | undefined = undefined

  constructor(id: string) {
    this.id = id
  }

  window(side: "Client" | "Server"): TrafficWindow {
    const make = () => new TrafficWindow(peerWindow.slots, peerWindow.millis)
    return side === "Client" ? (this.outgoing ??= make()) : (this.incoming ??= make())
  }
}

export type IdentityEvent = EventOf<"SvidRotated" | "BundleRotated" | "IdentityProblem">
export type RefusalEvent = EventOf<"ConnectionRefused" | "ConnectionsRefused">

const isFailure = (event: EventOf<"RequestEnded">): boolean =>
  event.error !== undefined || event.status === undefined || isServerErrorStatus(event.status)

export class ActivityState {
  readonly startedAt: number
  readonly peers = new Map<string, PeerActivity>()
  readonly connections = new Map<string, { readonly connection: OpenConnection; readonly peer: PeerActivity }>()
  private readonly outgoing = new TrafficWindow(wholeWindow.slots, wholeWindow.millis)
  private readonly incoming = new TrafficWindow(wholeWindow.slots, wholeWindow.millis)
  private readonly events = new Ring<AuditEvent>(maxEvents)
  private readonly requests = new Ring<EventOf<"RequestEnded">>(maxRequests)
  private readonly refusals = new Ring<RefusalEvent>(maxRefusals)
  private readonly history = new Ring<IdentityEvent>(maxHistory)
  totalRefused = 0

  constructor(startedAt: number) {
    this.startedAt = startedAt
  }

  record(event: AuditEvent): void {
    switch (event._tag) {
      case "RequestStarted": {
        const open = this.connections.get(event.connectionId)
        if (open !== undefined) open.connection.inFlight++
        return
      }
      case "RequestEnded":
        this.ended(event)
        return
      case "ConnectionEstablished":
        this.established(event)
        break
      case "ConnectionClosed":
        this.closed(event)
        break
      case "ConnectionRefused":
        this.refused(event, 1)
        break
      case "ConnectionsRefused":
        this.refused(event, event.count)
        break
      case "SvidRotated":
      case "BundleRotated":
      case "IdentityProblem":
        this.history.add(bounded(event))
        break
    }
    this.events.add(bounded(event))
  }

  traffic(side: "Client" | "Server", now: number): Traffic {
    return (side === "Client" ? this.outgoing : this.incoming).read(now)
  }

  /** Newest first, each. */
  get lists() {
    return {
      events: this.events.newest(),
      requests: this.requests.newest(),
      refusals: this.refusals.newest(),
      history: this.history.newest()
    }
  }

  private ended(event: EventOf<"RequestEnded">): void {
    const isFailed = isFailure(event)
    ;(event.side === "Client" ? this.outgoing : this.incoming).add(event.time, event.durationMillis, isFailed)
    const open = this.connections.get(event.connectionId)
    if (open !== undefined) {
      open.connection.inFlight--
      open.connection.requests++
    }
    // A request on a connection that is not kept, or has closed, is found by its peer.
    const peer = open?.peer ?? this.peers.get(event.peerId)
    if (peer !== undefined) {
      peer.lastSeen = event.time
      peer.window(event.side).add(event.time, event.durationMillis, isFailed)
    }
    this.requests.add(event.path.length > 256 ? bounded(event) : event)
  }

  private established(event: EventOf<"ConnectionEstablished">): void {
    const peer = this.peers.get(event.peerId) ?? this.remember(event.peerId)
    if (peer === undefined) return
    peer.lastSeen = event.time
    peer.open++
    if (this.connections.size >= maxConnections) return
    const connection: OpenConnection = {
      connectionId: event.connectionId,
      side: event.side,
      address: event.address,
      establishedAt: event.time,
      tlsVersion: event.tlsVersion,
      cipher: event.cipher,
      peerSerialNumber: event.peerSerialNumber,
      ownSerialNumber: event.ownSerialNumber,
      requests: 0,
      inFlight: 0
    }
    peer.connections.add(connection)
    this.connections.set(event.connectionId, { connection, peer })
  }

  private closed(event: EventOf<"ConnectionClosed">): void {
    const open = this.connections.get(event.connectionId)
    const peer = open?.peer ?? this.peers.get(event.peerId)
    if (open !== undefined) {
      this.connections.delete(event.connectionId)
      open.peer.connections.delete(open.connection)
    }
    // One that was not counted, because there was no room for its peer, is not taken off either: never below what is known.
    if (peer !== undefined) {
      peer.lastSeen = event.time
      peer.open = Math.max(peer.connections.size, peer.open - 1)
    }
  }

  private refused(event: RefusalEvent, count: number): void {
    this.totalRefused += count
    this.refusals.add(bounded(event))
  }

  /** A place for a peer: where there is none, that of the one without a connection that was seen longest ago. */
  private remember(id: string): PeerActivity | undefined {
    if (this.peers.size >= maxPeers) {
      let oldest: PeerActivity | undefined
      for (const peer of this.peers.values()) {
        if (peer.open === 0 && (oldest === undefined || peer.lastSeen < oldest.lastSeen)) oldest = peer
      }
      if (oldest === undefined) return undefined
      this.peers.delete(oldest.id)
    }
    const peer = new PeerActivity(id)
    this.peers.set(id, peer)
    return peer
  }
}
