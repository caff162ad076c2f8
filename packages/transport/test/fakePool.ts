import { ConnectionPool, PeerDirectory } from "@agentweave/transport"
import { Context, Effect, Exit, type Fiber, Layer, Scope } from "effect"
import { settled } from "../../spiffe/test/support/settled.js"
import { type Behaviour, FakeWire, identity } from "./fakeConnector.js"

export const a = "spiffe://example.org/a"
export const b = "spiffe://example.org/b"
export const c = "spiffe://example.org/c"

export type Pool = ConnectionPool.ConnectionPool["Type"]

/** A fake world and a pool into it, in a scope of its own. */
export const setup = (options: ConnectionPool.Options = {}, behaviour: Partial<Behaviour> = {}) =>
  Effect.gen(function* () {
    const wire = new FakeWire()
    wire.behaviour = { ...wire.behaviour, ...behaviour }
    const scope = yield* Scope.make()
    const context = yield* ConnectionPool.layer(options).pipe(
      Layer.provide(Layer.mergeAll(wire.layer, identity, PeerDirectory.layerTemplate("https://{1}.test"))),
      Layer.buildWithScope(scope)
    )
    return { wire, pool: Context.get(context, ConnectionPool.ConnectionPool), close: Scope.close(scope, Exit.void) }
  })

/** A lease that is kept until `end`. */
export const hold = (pool: Pool, peer: string) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const channel = yield* Scope.extend(pool.acquire(peer), scope)
    return { channel, end: Scope.close(scope, Exit.void) }
  })

/** What a fiber has come to by now: a value, an error, or `"running"`. */
export const peek = <A, E>(fiber: Fiber.RuntimeFiber<A, E>): Effect.Effect<A | E | "running" | "interrupted"> =>
  Effect.map(settled, () => {
    const exit = fiber.unsafePoll()
    if (exit === null) return "running"
    if (Exit.isSuccess(exit)) return exit.value
    if (exit.cause._tag === "Fail") return exit.cause.error
    return "interrupted"
  })

/** The tag of an error, or what came in its place. */
export const tag = (value: unknown): unknown =>
  typeof value === "object" && value !== null && "_tag" in value ? value._tag : value
