/** What the pool promises, in the plainest terms: every decision looks at everything there is. */
export interface Claim {
  readonly peer: string
  readonly deadline: number
  status: "Opening" | "Leased" | "Queued" | "Target" | "Total" | "Waiting" | "Failed" | "Interrupted" | "Done"
}

type Max = Readonly<Record<"target" | "total" | "waiting" | "wait" | "idle", number>>

/** `end`'s `usable`: the connection it had can be used again. */
export class PoolModel {
  readonly max: Max
  constructor(max: Max) {
    this.max = max
  }
  /** Without a claim a slot is idle; without a connection it is not opened yet, or has lost it. Last used last. */
  slots: Array<{ peer: string; claim?: Claim; connection?: number; since: number; retired?: true }> = []
  queue: Array<Claim> = []
  now = 0
  acquire(peer: string): Claim {
    const claim: Claim = { peer, deadline: this.now + this.max.wait, status: "Queued" }
    if (this.serve(claim)) return claim
    if (this.max.wait === 0) claim.status = this.limit(peer)
    else if (this.queue.length >= this.max.waiting) claim.status = "Waiting"
    else this.queue.push(claim)
    return claim
  }
  private limit = (id: string) =>
    this.slots.filter((_) => _.peer === id).length < this.max.target ? "Total" : "Target"
  private serve(claim: Claim): boolean {
    const idle = this.slots.filter((_) => _.claim === undefined)
    const slot = idle.findLast((_) => _.peer === claim.peer) ?? { peer: claim.peer, since: 0 }
    const isNew = !this.slots.includes(slot)
    const isFull = isNew && this.slots.length >= this.max.total
    if ((isNew && this.limit(claim.peer) === "Target") || (isFull && idle.length === 0)) return false
    if (isNew) this.slots = [...this.slots.filter((_) => !isFull || _ !== idle[0]), slot]
    slot.claim = claim
    claim.status = slot.connection === undefined ? "Opening" : "Leased"
    return true
  }
  /** The first in the queue that can be served; `-1 >>> 0` is beyond every end. */
  private next = () => this.queue.splice(this.queue.findIndex((claim) => this.serve(claim)) >>> 0, 1)
  opened(claim: Claim, connection: number): void {
    for (const slot of this.slots) if (slot.claim === claim) slot.connection = connection
    claim.status = "Leased"
  }
  end(claim: Claim, status: Claim["status"], usable: boolean): void {
    claim.status = status
    this.queue = this.queue.filter((_) => _ !== claim)
    const slot = this.slots.find((_) => _.claim === claim)
    if (slot === undefined) return
    this.slots = this.slots.filter((_) => _ !== slot)
    const { connection, peer, retired } = slot
    if (usable && !retired && connection !== undefined) this.slots.push({ peer, connection, since: this.now })
    this.next()
  }
  closed(connection: number): void {
    for (const slot of this.slots) if (slot.connection === connection) delete slot.connection
    this.slots = this.slots.filter((_) => _.claim !== undefined || _.connection !== undefined)
    this.next()
  }
  invalidate(peer: string): void {
    for (const slot of this.slots) if (slot.peer === peer) slot.retired = true
    this.slots = this.slots.filter((_) => _.claim !== undefined || !_.retired)
  }
  tick(millis: number, cleanup: boolean): void {
    this.now += millis
    for (const claim of this.queue.filter((_) => _.deadline <= this.now)) this.end(claim, this.limit(claim.peer), false)
    if (cleanup) this.slots = this.slots.filter((_) => _.claim !== undefined || this.now - _.since < this.max.idle)
  }
}
