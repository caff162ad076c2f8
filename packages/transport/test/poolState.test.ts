import { assert, describe, it } from "@effect/vitest"
import { PoolState, type Slot, type SocketWaiter, Waiter } from "../src/internal/pool/state.js"

class RecordingWaiter extends Waiter<string> {
  readonly granted: Array<string>
  readonly name: string
  constructor(key: string, name: string, granted: Array<string>) {
    super(key)
    this.name = name
    this.granted = granted
  }
  grant(slot: Slot<string>): void {
    this.granted.push(`${this.name} on ${slot.pooled}`)
  }
  refuse(): void {}
}

const make = (maxPerTarget: number, maxTotal: number) => {
  const closed: Array<string> = []
  const state = new PoolState<string>({ maxPerTarget, maxTotal, maxWaiting: 10 }, (slot, reason) =>
    closed.push(`${slot.pooled} ${reason}`)
  )
  /** Opens a connection named after its target. */
  const open = (key: string, link = key): Slot<string> => {
    const slot = state.leaseNew(state.target(key))
    if (typeof slot === "string") throw new Error(`expected room for ${key}, its limit is ${slot}`)
    slot.pooled = link
    return slot
  }
  const granted: Array<string> = []
  const wait = (key: string, name = key) => {
    const waiter = new RecordingWaiter(key, name, granted)
    if (!state.wait(waiter, 0)) throw new Error("expected a place in the queue")
    return waiter
  }
  return { state, open, wait, closed, granted }
}

describe("PoolState", () => {
  it("a place in the queue that was left twice takes nothing from those who came later", () => {
    const { open, state, wait } = make(1, 1)
    open("a")
    const first = wait("b")
    state.leave(first)
    assert.isFalse(state.targets.has("b"))
    wait("b")
    state.leave(first)
    assert.strictEqual(state.targets.get("b")?.waiters.size, 1)
  })

  it("a slot that was dropped twice is counted once", () => {
    const { open, state } = make(2, 2)
    const slot = open("a")
    open("a")
    state.drop(slot)
    state.drop(slot)
    assert.strictEqual(state.total, 1)
    assert.strictEqual(state.targets.get("a")?.slots.size, 1)
  })

  it("a waiter held back by its own target's limit does not hold back those after him", () => {
    const { granted, open, state, wait } = make(1, 2)
    open("a")
    const other = open("b")
    wait("a")
    wait("c")
    state.release(other, 1)
    assert.deepStrictEqual(granted, ["c on undefined"])
  })

  it("among those whom only the total limit holds back the first one is served, whatever became free", () => {
    const { closed, granted, open, state, wait } = make(2, 2)
    const [slot] = [open("a"), open("a")]
    wait("c")
    wait("b")
    wait("a")
    state.release(slot, 1)
    assert.deepStrictEqual([granted, closed], [["c on undefined"], ["a Evicted"]])
    state.drop(Array.from(state.targets.get("c")?.slots ?? [])[0] ?? slot)
    assert.deepStrictEqual(granted, ["c on undefined", "b on undefined"])
  })

  it("a waiter of the target goes before a younger one of another target", () => {
    const { closed, granted, open, state, wait } = make(1, 1)
    const slot = open("a")
    wait("a")
    wait("b")
    state.release(slot, 1)
    assert.deepStrictEqual([granted, closed], [["a on a"], []])
  })

  it("a connection whose lease was no use of it comes back to its place among those used before and since", () => {
    const { closed, open, state } = make(3, 3)
    const [first, second, third] = [open("a", "1"), open("a", "2"), open("a", "3")]
    state.release(first, 1)
    state.release(second, 2)
    state.release(third, 3)
    // Probed, and put back as if nothing had been.
    state.lease(first)
    state.release(first)
    assert.strictEqual(state.leaseIdle(state.target("a"))?.pooled, "3")
    state.release(third, 4)
    open("b")
    assert.deepStrictEqual(closed, ["1 Evicted"])
  })

  it("a target is known as long as somebody has, wants or closes a connection of it", () => {
    const { open, state, wait } = make(1, 2)
    const slot = open("a")
    const socket: SocketWaiter<string> = { target: slot.target, proceed: () => {} }
    assert.isTrue(state.reserveSocket(socket))
    const waiter = wait("a")
    state.leave(waiter)
    state.drop(slot)
    assert.isTrue(state.targets.has("a"))
    state.releaseSocket(slot.target)
    assert.isFalse(state.targets.has("a"))
    // Refused without a trace.
    open("b")
    open("c")
    assert.strictEqual(state.leaseNew(state.target("d")), "Total")
    assert.isFalse(state.targets.has("d"))
    const first = wait("d")
    wait("d")
    state.leave(first)
    assert.isTrue(state.targets.has("d"))
  })

  describe("the sockets of a pool", () => {
    const reserving = (state: PoolState<string>, key: string) => {
      const reserved: Array<string> = []
      const waiter = { target: state.target(key), proceed: () => reserved.push(key) }
      if (state.reserveSocket(waiter)) reserved.push(key)
      return { waiter, reserved }
    }

    it("are no more of one target than its limit, those of closing connections included", () => {
      const { state } = make(1, 3)
      const [first, second] = [reserving(state, "a"), reserving(state, "a")]
      assert.deepStrictEqual([first.reserved, second.reserved], [["a"], []])
      const other = reserving(state, "b")
      assert.deepStrictEqual(other.reserved, ["b"])
      state.releaseSocket(state.target("b"))
      assert.deepStrictEqual(second.reserved, [])
      state.releaseSocket(state.target("a"))
      assert.deepStrictEqual(second.reserved, ["a"])
    })

    it("are no more than the total limit, and one is reserved for each that is released", () => {
      const { state } = make(1, 1)
      reserving(state, "a")
      const [second, third] = [reserving(state, "b"), reserving(state, "c")]
      state.releaseSocket(state.target("a"))
      assert.deepStrictEqual([second.reserved, third.reserved, state.sockets], [["b"], [], 1])
      state.cancelSocket(third.waiter)
      state.releaseSocket(state.target("b"))
      assert.deepStrictEqual([third.reserved, state.sockets], [[], 0])
    })
  })
})
