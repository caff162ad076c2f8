/** The last few of many values. Its memory is that of the values it holds. */
export class Ring<A> {
  private readonly values: Array<A> = []
  private readonly capacity: number
  /** Values that were ever added. */
  total = 0

  constructor(capacity: number) {
    this.capacity = capacity
  }

  add(value: A): void {
    this.values[this.total % this.capacity] = value
    this.total++
  }

  /** Newest first. */
  newest(): ReadonlyArray<A> {
    const next = this.total % this.capacity
    return [...this.values.slice(0, next).reverse(), ...this.values.slice(next).reverse()]
  }
}
