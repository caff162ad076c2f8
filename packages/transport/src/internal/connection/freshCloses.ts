/** The most addresses that are remembered. */
const maxAddresses = 1_024

/**
 * Connections that their peer closed without a byte of a response, by address. A server that refuses our certificate may do
 * so without an alert, and under TLS 1.3 after our side of the handshake has ended: then this is all that is seen of it.
 */
export class FreshCloses {
  /** When, as the supervisor counts, the first such connection of an address was closed. */
  private readonly first = new Map<string, number>()

  /**
   * A connection that was established at `since` was closed like that at `now`. Returns whether it is the second in a row:
   * connections that were established before the first was closed, and closed with it, are no further sign.
   */
  closed(address: string, since: number, now: number): boolean {
    const before = this.first.get(address)
    if (before !== undefined) return since > before
    const [oldest] = this.first.keys()
    if (this.first.size >= maxAddresses && oldest !== undefined) this.first.delete(oldest)
    this.first.set(address, now)
    return false
  }

  /** The peer has answered. */
  answered(address: string): void {
    if (this.first.size > 0) this.first.delete(address)
  }
}
