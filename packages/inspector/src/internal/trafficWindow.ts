/**
 * Requests of the last few minutes, by slots of time: how many, how many failed, and how long they took. Its memory is
 * fixed when it is made.
 */
import type { Traffic } from "../Snapshot.js"

/** Buckets for durations: four to each doubling from 1 ms; the last one also holds all above it, 66 s and more. */
const perOctave = 4
const buckets = 16 * perOctave + 1

/** The duration a bucket stands for, in milliseconds: its least below 8, where whole milliseconds have a bucket each, else its middle. */
const durations = Array.from({ length: buckets }, (_, bucket) => {
  if (bucket === 0) return 0.5
  const octave = 2 ** Math.floor((bucket - 1) / perOctave)
  const part = (bucket - 1) % perOctave
  return octave < 8 ? octave * (1 + part / perOctave) : Math.round(octave * (1 + (part + 0.5) / perOctave))
})

const bucketOf = (millis: number): number => {
  if (!(millis >= 1)) return 0
  // Four binary places: exact for whole milliseconds, and `clz32` needs an integer.
  const scaled = Math.min(millis, 65_535) * 16
  const octave = 31 - Math.clz32(scaled)
  const part = (scaled >>> (octave - 2)) & (perOctave - 1)
  return (octave - 4) * perOctave + part + 1
}

const quantile = (histogram: Uint32Array, from: number, count: number, q: number): number | null => {
  if (count === 0) return null
  let left = Math.max(1, Math.ceil(count * q))
  for (let bucket = 0; bucket < buckets; bucket++) {
    left -= histogram[from + bucket] ?? 0
    if (left <= 0) return durations[bucket] ?? 0
  }
  return null
}

export class TrafficWindow {
  private readonly slots: number
  private readonly slotMillis: number
  private readonly requests: Uint32Array
  private readonly errors: Uint32Array
  private readonly histogram: Uint32Array
  /** The newest slot, counted from the epoch; -1 before the first request. */
  private newest = -1
  total = 0
  totalErrors = 0

  constructor(slots: number, slotMillis: number) {
    this.slots = slots
    this.slotMillis = slotMillis
    this.requests = new Uint32Array(slots)
    this.errors = new Uint32Array(slots)
    this.histogram = new Uint32Array(slots * buckets)
  }

  add(time: number, durationMillis: number, failed: boolean): void {
    this.total++
    if (failed) this.totalErrors++
    const at = this.place(time)
    this.requests[at] = (this.requests[at] ?? 0) + 1
    if (failed) this.errors[at] = (this.errors[at] ?? 0) + 1
    const bucket = at * buckets + bucketOf(durationMillis)
    this.histogram[bucket] = (this.histogram[bucket] ?? 0) + 1
  }

  /** The window that ends with the present slot, oldest slot first. */
  read(now: number): Traffic {
    this.place(now)
    const { slots } = this
    const requests: Array<number> = []
    const errors: Array<number> = []
    const p50: Array<number | null> = []
    const p99: Array<number | null> = []
    const whole = new Uint32Array(buckets)
    for (let back = slots - 1; back >= 0; back--) {
      const at = (this.newest - back + slots) % slots
      const count = this.requests[at] ?? 0
      requests.push(count)
      errors.push(this.errors[at] ?? 0)
      p50.push(quantile(this.histogram, at * buckets, count, 0.5))
      p99.push(quantile(this.histogram, at * buckets, count, 0.99))
      if (count > 0)
        for (let i = 0; i < buckets; i++) whole[i] = (whole[i] ?? 0) + (this.histogram[at * buckets + i] ?? 0)
    }
    const count = requests.reduce((sum, n) => sum + n, 0)
    return {
      slotMillis: this.slotMillis,
      endsAt: (this.newest + 1) * this.slotMillis,
      total: this.total,
      totalErrors: this.totalErrors,
      p50Millis: quantile(whole, 0, count, 0.5),
      p99Millis: quantile(whole, 0, count, 0.99),
      requests,
      errors,
      p50,
      p99
    }
  }

  /**
   * The index of the slot of a time, after the slots between the newest one and it were emptied. What comes late counts in its
   * slot while that is in the window. A clock that was set back by more than the window begins a new one.
   */
  private place(time: number): number {
    const slot = Math.floor(time / this.slotMillis)
    const { newest, slots } = this
    if (slot === newest || (slot < newest && newest - slot < slots)) return slot % slots
    const isFresh = slot < newest || slot - newest >= slots
    for (let next = isFresh ? slot - slots + 1 : newest + 1; next <= slot; next++) this.empty((next + slots) % slots)
    this.newest = slot
    return slot % slots
  }

  private empty(at: number): void {
    this.requests[at] = 0
    this.errors[at] = 0
    this.histogram.fill(0, at * buckets, (at + 1) * buckets)
  }
}
