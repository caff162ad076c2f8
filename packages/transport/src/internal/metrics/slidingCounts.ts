const slices = 10

/**
 * Counts of the last `length` milliseconds, in ten slices: the present one and the nine before it. What a slice holds
 * leaves together with it. Mutable; time comes in as an argument and never runs backwards.
 */
export class SlidingCounts {
  private readonly slice: number
  private readonly counts: ReadonlyArray<Uint32Array>
  private current = Number.NEGATIVE_INFINITY

  constructor(length: number, kinds: number) {
    this.slice = length / slices
    this.counts = Array.from({ length: kinds }, () => new Uint32Array(slices))
  }

  add(kind: number, now: number): void {
    this.advance(now)
    const counts = this.counts[kind]
    const at = this.current % slices
    if (counts !== undefined) {
      counts[at] = (counts[at] ?? 0) + 1
    }
  }

  /** Takes back one that was added at this time, unless it was forgotten already. */
  remove(kind: number, addedAt: number): void {
    const index = Math.floor(addedAt / this.slice)
    const counts = this.counts[kind]
    const at = index % slices
    const count = counts?.[at] ?? 0
    if (counts !== undefined && index > this.current - slices && count > 0) counts[at] = count - 1
  }

  sum(kind: number, now: number): number {
    this.advance(now)
    return this.counts[kind]?.reduce((total, count) => total + count, 0) ?? 0
  }

  private advance(now: number): void {
    const index = Math.floor(now / this.slice)
    for (let stale = Math.max(this.current + 1, index - slices + 1); stale <= index; stale++) {
      for (const counts of this.counts) {
        counts[stale % slices] = 0
      }
    }
    this.current = Math.max(this.current, index)
  }
}
