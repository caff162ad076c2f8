import { assert, it } from "@effect/vitest"
import { Effect, Exit, Layer, Logger, Scope } from "effect"

/** Within this time on the real clock, or never. */
const within = <A, E, R>(effect: Effect.Effect<A, E, R>, onTimeout: string) =>
  Effect.timeoutFail(Effect.disconnect(effect), { duration: "20 seconds", onTimeout: () => new Error(onTimeout) })

/** What starts the fibers of a layer, while it is there. */
type Use<A> = Effect.Effect<unknown, unknown, A>

export interface Row {
  readonly name: string
  readonly buildAndEnd: Effect.Effect<void, unknown, Scope.Scope>
}

/** Builds a layer where it cannot be interrupted, as in the `acquire` of `Effect.acquireRelease`, uses it, and ends its scope. */
export const row = <A>(
  name: string,
  make: Effect.Effect<Layer.Layer<A, unknown>, unknown, Scope.Scope>,
  use: Use<A> = Effect.void
): Row => ({
  name,
  buildAndEnd: Effect.gen(function* () {
    const layer = yield* make
    const scope = yield* Scope.make()
    const context = yield* within(Effect.uninterruptible(Layer.buildWithScope(layer, scope)), "it is never built")
    yield* within(Effect.provide(use, context), "its use never ends")
    yield* within(Scope.close(scope, Exit.void), "its scope never ends")
  })
})

/** A test for each row, and one that fails when the package has a layer that is in no row. */
export const eachEnds = (modules: Readonly<Record<string, object>>, rows: ReadonlyArray<Row>): void => {
  for (const { buildAndEnd, name } of rows) {
    it.scopedLive(`${name}, built where it cannot be interrupted, ends with its scope`, () =>
      Effect.provide(buildAndEnd, Logger.remove(Logger.defaultLogger))
    )
  }
  it("no layer of the package is missing here", () => {
    const layers = Object.entries(modules).flatMap(([module, exports]) =>
      Object.keys(exports).flatMap((name) => (name.startsWith("layer") ? [`${module}.${name}`] : []))
    )
    const names = new Set(rows.map(({ name }) => name))
    const missing = layers.filter((name) => !names.has(name)).join(", ")
    assert.strictEqual(missing, "", "expected a row for each layer, so that it is known to end where it is built")
  })
}
