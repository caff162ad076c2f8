/** How many connections and handshakes a server has at a time, in all and of one remote address. */
export interface Limits {
  readonly maxConnections: number
  readonly maxConnectionsPerAddress: number
  readonly maxHandshakes: number
  readonly maxHandshakesPerAddress: number
}

interface Count {
  connections: number
  handshakes: number
}

/** Which limit stands in the way. */
export type Reached = keyof Limits

/** Counts accepted TCP connections, and those of them whose handshake has not ended. */
export class Occupancy {
  private readonly limits: Limits
  private readonly all: Count = { connections: 0, handshakes: 0 }
  private readonly byAddress = new Map<string, Count>()

  constructor(limits: Limits) {
    this.limits = limits
  }

  /** The limit that one more connection from an address would exceed. */
  reached(address: string): Reached | undefined {
    const { all, limits } = this
    const here = this.byAddress.get(address)
    if (all.connections >= limits.maxConnections) return "maxConnections"
    if (all.handshakes >= limits.maxHandshakes) return "maxHandshakes"
    if (here === undefined) return undefined
    if (here.connections >= limits.maxConnectionsPerAddress) return "maxConnectionsPerAddress"
    return here.handshakes >= limits.maxHandshakesPerAddress ? "maxHandshakesPerAddress" : undefined
  }

  limit(reached: Reached): number {
    return this.limits[reached]
  }

  accepted(address: string): void {
    const here = this.byAddress.get(address) ?? { connections: 0, handshakes: 0 }
    this.byAddress.set(address, here)
    for (const count of [this.all, here]) {
      count.connections++
      count.handshakes++
    }
  }

  /** A handshake has ended, with a connection or without. */
  handshakeEnded(address: string): void {
    this.all.handshakes--
    const here = this.byAddress.get(address)
    if (here !== undefined) here.handshakes--
  }

  /** A connection is off the wire. */
  gone(address: string): void {
    this.all.connections--
    const here = this.byAddress.get(address)
    if (here === undefined) return
    here.connections--
    if (here.connections === 0) this.byAddress.delete(address)
  }
}
