import { assert, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Queue } from "../src/internal/queue.js"

it("a queue of the pool serves in the order of arrival those that have not left, however many come and go", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(9), { maxLength: 2_000 }), (steps) => {
      const queue = new Queue<number>()
      const model: Array<number> = []
      const places = new Map<number, number>()
      let next = 0
      for (const [i, step] of steps.entries()) {
        if (step < 5) {
          places.set(next, queue.join(next))
          model.push(next++)
        } else if (step < 8) {
          assert.strictEqual(queue.take(), model.shift())
        } else {
          // Any that ever came: it is there still, was served, or has left.
          const value = (i * 7) % Math.max(1, next)
          const at = model.indexOf(value)
          assert.strictEqual(queue.leave(places.get(value) ?? 0, value), at >= 0)
          if (at >= 0) model.splice(at, 1)
        }
        assert.strictEqual(queue.head, model[0])
        assert.strictEqual(queue.size, model.length)
      }
    }),
    { numRuns: 50 }
  )
})
