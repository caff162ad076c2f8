import { assert, describe, it } from "@effect/vitest"
import { FreshCloses } from "../../src/internal/connection/freshCloses.js"

describe("connections that their peer closes without a byte", () => {
  it("are two in a row where the second was established after the first was closed", () => {
    const closes = new FreshCloses()
    assert.isFalse(closes.closed("a", 1, 5))
    assert.isTrue(closes.closed("a", 6, 7))
    assert.isTrue(closes.closed("a", 8, 9))
  })

  it("are no sign where they were open together, nor at another address", () => {
    const closes = new FreshCloses()
    assert.isFalse(closes.closed("a", 1, 5))
    assert.isFalse(closes.closed("a", 2, 6))
    assert.isFalse(closes.closed("b", 7, 8))
  })

  it("are forgotten when the peer answers, and the oldest when there are too many", () => {
    const closes = new FreshCloses()
    closes.closed("a", 1, 5)
    closes.answered("a")
    assert.isFalse(closes.closed("a", 6, 7))
    for (let i = 0; i < 1_024; i++) closes.closed(`${i}`, 8, 9)
    assert.isFalse(closes.closed("a", 10, 11))
  })
})
