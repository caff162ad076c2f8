import { readdirSync, readFileSync } from "node:fs"
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

/** The layers of a package that have a scope: those made by `Layer.scoped` and its like. */
const layersWithScope = (source: URL): ReadonlyArray<string> =>
  readdirSync(source)
    .filter((file) => file.endsWith(".ts"))
    .flatMap((file) => {
      const [, ...exported] = readFileSync(new URL(file, source), "utf8").split(/^export const /m)
      return exported
        .filter((text) => text.startsWith("layer") && /\bLayer\.\w*[sS]coped/.test(text))
        .map((text) => `${file.slice(0, -".ts".length)}.${text.split(/\W/, 1).join()}`)
    })

/** A test for each row, and one that fails when the package has a layer with a scope that is in no row. */
export const eachEnds = (source: URL, rows: ReadonlyArray<Row>): void => {
  for (const { buildAndEnd, name } of rows) {
    it.scopedLive(`${name}, built where it cannot be interrupted, ends with its scope`, () =>
      Effect.provide(buildAndEnd, Logger.remove(Logger.defaultLogger))
    )
  }
  it("no layer of the package that has a scope is missing here", () => {
    const names = new Set(rows.map(({ name }) => name))
    const missing = layersWithScope(source).filter((name) => !names.has(name))
    assert.strictEqual(missing.join(", "), "", "expected a row for each layer, so that it is known to end")
  })
}
