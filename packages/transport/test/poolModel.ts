/** What the pool promises, in the plainest terms: every decision looks at everything there is. */
export interface Claim {
  readonly peer: string
  readonly deadline: number
  status: "Opening" | "Leased" | "Queued" | "Target" | "Total" | "Waiting" | "Failed" | "Interrupted" | "Done"
}

export class PoolModel {
  readonly max: { target: number; total: number; waiting: number; wait: number; idle: number }
  /** Without a claim a slot is idle; without a connection it is not opened yet, or has lost it. Last used last. */
  slots: Array<{ peer: string; claim?: Claim; connection?: number; since: number; retired?: true }> = []
  queue: Array<Claim> = []
  now = 0
  constructor(max: PoolModel["max"]) {
    this.max = max
  }
  acquire(peer: string): Claim {
    const claim: Claim = { peer, deadline: this.now + this.max.wait, status: "Queued" }
    if (this.serve(claim)) return claim
    if (this.max.wait === 0) claim.status = this.limit(peer)
    else if (this.queue.length >= this.max.waiting) claim.status = "Waiting"
    else this.queue.push(claim)
    return claim
  }
  private limit = (peer: string) =>
    this.slots.filter((_) => _.peer === peer).length < this.max.target ? "Total" : "Target"
  private idle = () => this.slots.filter((_) => _.claim === undefined)
  private remove = (slot: this["slots"][0]) => (this.slots = this.slots.filter((_) => _ !== slot))
  private serve(claim: Claim): boolean {
    const slot = this.idle().findLast((_) => _.peer === claim.peer) ?? { peer: claim.peer, since: 0 }
    if (!this.slots.includes(slot)) {
      if (this.limit(claim.peer) === "Target") return false
      if (this.slots.length >= this.max.total && this.idle().length === 0) return false
      if (this.slots.length >= this.max.total)
        this.slots.splice(
          this.slots.findIndex((_) => _.claim === undefined),
          1
        )
      this.slots.push(slot)
    }
    slot.claim = claim
    claim.status = slot.connection === undefined ? "Opening" : "Leased"
    return true
  }
  private next(): void {
    const served = this.queue.find((claim) => this.serve(claim))
    this.queue = this.queue.filter((_) => _ !== served)
  }
  opened(claim: Claim, connection: number): void {
    for (const slot of this.slots) if (slot.claim === claim) slot.connection = connection
    claim.status = "Leased"
  }
  /** `usable`: the connection it had can be used again. */
  end(claim: Claim, status: Claim["status"], usable: boolean): void {
    claim.status = status
    this.queue = this.queue.filter((_) => _ !== claim)
    const slot = this.slots.find((_) => _.claim === claim)
    if (slot === undefined) return
    this.remove(slot)
    const { connection, peer } = slot
    if (usable && !slot.retired && connection !== undefined) this.slots.push({ peer, connection, since: this.now })
    this.next()
  }
  closed(connection: number): void {
    for (const slot of this.slots.filter((_) => _.connection === connection)) {
      delete slot.connection
      if (slot.claim === undefined) this.remove(slot)
    }
    this.next()
  }
  invalidate(peer: string): void {
    for (const slot of this.slots) if (slot.peer === peer) slot.retired = true
    for (const slot of this.idle()) if (slot.retired) this.remove(slot)
  }
  tick(millis: number, cleanup: boolean): void {
    this.now += millis
    for (const claim of this.queue.filter((_) => _.deadline <= this.now)) this.end(claim, this.limit(claim.peer), false)
    for (const slot of this.idle()) if (cleanup && this.now - slot.since >= this.max.idle) this.remove(slot)
  }
}
