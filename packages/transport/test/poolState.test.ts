import { assert, describe, it } from "@effect/vitest"
import { PoolState, type Slot, type Waiter } from "../src/internal/pool/state.js"

const make = (maxPerTarget: number, maxTotal: number) => {
  const closed: Array<string> = []
  const state = new PoolState<string>({ maxPerTarget, maxTotal, maxWaiting: 10 }, (slot, reason) =>
    closed.push(`${slot.link} ${reason}`)
  )
  /** Opens a connection named after its target. */
  const open = (key: string, link = key): Slot<string> => {
    const slot = state.open(state.target(key))
    if (typeof slot === "string") throw new Error(`expected room for ${key}, its limit is ${slot}`)
    slot.link = link
    return slot
  }
  const granted: Array<string> = []
  const wait = (key: string, name = key) => {
    const waiter: Waiter<string> = { grant: (slot) => granted.push(`${name} on ${slot.link}`), refuse: () => {} }
    const ticket = state.wait(key, waiter, 0)
    if (ticket === undefined) throw new Error("expected a place in the queue")
    return ticket
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
    assert.strictEqual(state.targets.get("b")?.tickets.size, 1)
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

  it("a waiter held back by his own target's limit does not hold back those after him", () => {
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
    assert.strictEqual(state.take(state.target("a"))?.link, "3")
    state.release(third, 4)
    open("b")
    assert.deepStrictEqual(closed, ["1 Evicted"])
  })

  it("a target is known as long as somebody has, wants or closes a connection of it", () => {
    const { open, state, wait } = make(1, 2)
    const slot = open("a")
    const dialer = { target: slot.target, proceed: () => {} }
    assert.isTrue(state.dial(dialer))
    const ticket = wait("a")
    state.leave(ticket)
    state.drop(slot)
    assert.isTrue(state.targets.has("a"))
    state.hangUp(slot.target)
    assert.isFalse(state.targets.has("a"))
    // Refused without a trace.
    open("b")
    open("c")
    assert.strictEqual(state.open(state.target("d")), "Total")
    assert.isFalse(state.targets.has("d"))
    const first = wait("d")
    wait("d")
    state.leave(first)
    assert.isTrue(state.targets.has("d"))
  })

  describe("the wire", () => {
    const dialing = (state: PoolState<string>, key: string) => {
      const dialed: Array<string> = []
      const dialer = { target: state.target(key), proceed: () => dialed.push(key) }
      if (state.dial(dialer)) dialed.push(key)
      return { dialer, dialed }
    }

    it("takes no more connections of one target than its limit, closing ones included", () => {
      const { state } = make(1, 3)
      const [first, second] = [dialing(state, "a"), dialing(state, "a")]
      assert.deepStrictEqual([first.dialed, second.dialed], [["a"], []])
      const other = dialing(state, "b")
      assert.deepStrictEqual(other.dialed, ["b"])
      state.hangUp(state.target("b"))
      assert.deepStrictEqual(second.dialed, [])
      state.hangUp(state.target("a"))
      assert.deepStrictEqual(second.dialed, ["a"])
    })

    it("takes no more connections than the total limit, and lets in one for each that leaves", () => {
      const { state } = make(1, 1)
      dialing(state, "a")
      const [second, third] = [dialing(state, "b"), dialing(state, "c")]
      state.hangUp(state.target("a"))
      assert.deepStrictEqual([second.dialed, third.dialed, state.wire], [["b"], [], 1])
      state.undial(third.dialer)
      state.hangUp(state.target("b"))
      assert.deepStrictEqual([third.dialed, state.wire], [[], 0])
    })
  })
})
