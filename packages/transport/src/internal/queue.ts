/**
 * First come, first served, and anyone may leave. Those who wait are in a `Map` by the number of their place. The first entry
 * of a `Map` or a `Set` is found past the places of all that have left before it; here each place is passed once.
 */
export class Queue<A> {
  private readonly places = new Map<number, A>()
  /** No place before it is taken. */
  private first = 0
  private next = 0

  get size(): number {
    return this.places.size
  }

  /** Joins at the end; the number is what the place is left by. */
  join(value: A): number {
    this.places.set(this.next, value)
    return this.next++
  }

  /** Nothing happens where the place has been left already. */
  leave(place: number): void {
    this.places.delete(place)
  }

  /** The one that waits longest. */
  get head(): A | undefined {
    if (this.places.size === 0) return undefined
    while (!this.places.has(this.first)) this.first++
    return this.places.get(this.first)
  }

  /** The one that waits longest, which waits no more. */
  take(): A | undefined {
    const { head } = this
    if (head !== undefined) this.places.delete(this.first)
    return head
  }
}
