/** Requests whose start is not on record yet. */
import type { AuditEvent } from "@agentweave/transport/AuditEvent"

/**
 * Holds the starts of requests back, because the end of a request says all that its start does: a request that ends within
 * the flush window is one record.
 */
export class Starts {
  private readonly held = new Map<string, AuditEvent>()

  get size(): number {
    return this.held.size
  }

  hold(event: Extract<AuditEvent, { readonly _tag: "RequestStarted" }>): void {
    this.held.set(event.requestId, event)
  }

  /** Whether the start of a request that has ended was held: its end is its only record then. */
  release(requestId: string): boolean {
    return this.held.delete(requestId)
  }

  /** The requests that are still open, to be put on record now. */
  takeAll(): ReadonlyArray<AuditEvent> {
    if (this.held.size === 0) return []
    const open = Array.from(this.held.values())
    this.held.clear()
    return open
  }
}
