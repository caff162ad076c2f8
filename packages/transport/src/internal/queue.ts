/** How many places at the front of a queue may be empty before they are given up. */
const maxEmpty = 64

/**
 * First come, first served, and anyone may leave. It is an array in which a place that was left is empty. The first entry of a
 * `Set` or a `Map` is found past all that have left before it, and both are made anew again and again while entries come and go:
 * half of what a wait for a connection costs (`npm run bench -- pool`, 100 fibers).
 */
export class Queue<A> {
  size = 0
  private readonly places: Array<A | undefined> = []
  /** The number of the first place in the array. */
  private offset = 0
  /** All places before it in the array are empty. */
  private first = 0

  /** Joins at the end; the number is what the place is left by. */
  join(value: A): number {
    this.size++
    return this.offset + this.places.push(value) - 1
  }

  /** Leaves a place; `false` where the value is not at it. */
  leave(place: number, value: A): boolean {
    const at = place - this.offset
    if (this.places[at] !== value) return false
    this.places[at] = undefined
    this.size--
    return true
  }

  /** The one that waits longest. */
  get head(): A | undefined {
    const { places } = this
    while (this.first < places.length && places[this.first] === undefined) this.first++
    if (this.first > maxEmpty && this.first * 2 > places.length) {
      places.splice(0, this.first)
      this.offset += this.first
      this.first = 0
    }
    return places[this.first]
  }

  /** The one that waits longest, which waits no more. */
  take(): A | undefined {
    const { head } = this
    if (head !== undefined) this.leave(this.offset + this.first, head)
    return head
  }
}
