import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Effect } from "effect"

setFlagsFromString("--expose-gc")
const gc = runInNewContext("gc") as () => void

/** Collects garbage for real, some turns of the event loop apart, so that finalizers run too. */
export const collectGarbage: Effect.Effect<void> = Effect.async<void>((resume) => {
  const turn = (left: number): void => {
    gc()
    if (left === 0) resume(Effect.void)
    else setImmediate(() => turn(left - 1))
  }
  turn(3)
})
