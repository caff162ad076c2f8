/**
 * A TCP proxy between a client and a server that breaks connections on demand and keeps a record of each.
 *
 * @since 0.1.0
 */
import type { Socket } from "node:net"
import { type InvalidConfigError, OptionsDecoder } from "@agentweave/spiffe"
import { forkScoped } from "@agentweave/spiffe/Background"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import { absurd } from "effect/Function"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Fault from "./Fault.js"
import * as sockets from "./internal/sockets.js"

/**
 * One connection a client made, open or closed.
 *
 * @since 0.1.0
 * @category models
 */
export interface ProxiedConnection {
  /** 0 for the first one, then counting up. */
  readonly index: number
  readonly fault: Fault.Fault
  /** Milliseconds since the epoch, from Effect's `Clock`. */
  readonly openedAt: number
  /** `undefined` while it is open. */
  readonly closedAt: number | undefined
  /** Bytes the client sent that were passed on, or swallowed by a fault that swallows. */
  readonly fromClient: number
  /** Bytes delivered to the client. */
  readonly toClient: number
}

/**
 * A TCP proxy on this machine that brings faults into the connections through it.
 *
 * @since 0.1.0
 * @category models
 */
export interface FaultProxy {
  /** Where clients connect: always `127.0.0.1`. */
  readonly host: string
  readonly port: number
  /** Sets the fault of connections made from now on; live ones keep the fault they began with. */
  readonly setFault: (fault: Fault.Fault) => Effect.Effect<void, InvalidConfigError.InvalidConfigError>
  /**
   * Chooses the fault for each new connection by its index. `Refuse` is here a reset at once, and so is a fault that breaks
   * a rule: it is logged as an error.
   */
  readonly setFaults: (choose: (index: number) => Fault.Fault) => Effect.Effect<void>
  /** Where connections made from now on lead. */
  readonly setTarget: (target: Target) => Effect.Effect<void, InvalidConfigError.InvalidConfigError>
  /** Resets every live connection, on both sides. Done when their records say closed. */
  readonly cutAll: Effect.Effect<void>
  /** Every connection ever made, in order. */
  readonly connections: Effect.Effect<ReadonlyArray<ProxiedConnection>>
  /** How many connections are open now. */
  readonly open: Effect.Effect<number>
  /** Waits until the records satisfy a predicate, and gives them. No polling. */
  readonly awaitConnections: (
    predicate: (connections: ReadonlyArray<ProxiedConnection>) => boolean
  ) => Effect.Effect<ReadonlyArray<ProxiedConnection>>
  /** Waits until exactly `count` connections are open. */
  readonly awaitOpen: (count: number) => Effect.Effect<void>
}

/**
 * The address a proxy leads to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Target {
  /** Default `127.0.0.1`. */
  readonly host?: string | undefined
  readonly port: number
}

const decode = OptionsDecoder.decoder(
  "FaultProxy",
  Schema.Struct({ host: Schema.optional(OptionsDecoder.Text), port: OptionsDecoder.NumberIn(1, 65_535) })
)

const Direction = OptionsDecoder.OneOf("FromClient", "ToClient")

const Cut = { afterBytes: OptionsDecoder.NumberIn(0), direction: Direction }

const decodeFault = OptionsDecoder.decoder(
  "Fault",
  Schema.Union(
    Schema.TaggedStruct("PassThrough", {}),
    Schema.TaggedStruct("Refuse", {}),
    Schema.TaggedStruct("Reset", Cut),
    Schema.TaggedStruct("Finish", Cut),
    Schema.TaggedStruct("Silence", {}),
    Schema.TaggedStruct("Delay", { by: OptionsDecoder.NonNegativeDuration }),
    Schema.TaggedStruct("Answer", { bytes: Schema.Uint8ArrayFromSelf })
  )
)

type CheckedFault = Effect.Effect.Success<ReturnType<typeof decodeFault>>

/** A fault chosen for one connection has nobody to be refused to. */
const checked = (fault: Fault.Fault): Effect.Effect<CheckedFault> =>
  Effect.catchAll(decodeFault(fault), (error) =>
    Effect.as(Effect.logError("the chosen fault breaks a rule", error), { _tag: "Refuse" } as const)
  )

const isOpen = (connection: ProxiedConnection): boolean => connection.closedAt === undefined

const reset = (socket: Socket): void => {
  if (!socket.destroyed) socket.resetAndDestroy()
}

/** A connection that came to its end is closed; one that was interrupted is reset. */
const release = (socket: Socket, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
  Effect.sync(() => (Exit.isSuccess(exit) ? socket.destroy() : reset(socket)))

type Count = (direction: Fault.Direction, bytes: number) => Effect.Effect<void>

/** Reads and drops until the socket is closed. What is read counts as swallowed. */
const drain = (from: sockets.Inbox, count: Count): Effect.Effect<void> =>
  Effect.flatMap(from.next, (event) => {
    if (event === "Close") return Effect.void
    if (event === "End") return Effect.zipRight(sockets.end(from.socket), drain(from, count))
    return Effect.zipRight(count("FromClient", event.length), drain(from, count))
  })

/** Ends the connection towards the client, and waits for the client to do the same. */
const finish = (client: sockets.Inbox): Effect.Effect<void> =>
  Effect.zipRight(
    sockets.end(client.socket),
    drain(client, () => Effect.void)
  )

/** Moves bytes one way until the side they come from is done (`false`), or the fault's limit was reached (`true`). */
const pump = Effect.fnUntraced(function* (
  from: sockets.Inbox,
  to: Socket,
  direction: Fault.Direction,
  fault: CheckedFault,
  count: Count
): Effect.fn.Return<boolean> {
  const cuts = (fault._tag === "Reset" || fault._tag === "Finish") && fault.direction === direction
  let room = cuts ? fault.afterBytes : Number.POSITIVE_INFINITY
  while (room > 0) {
    const event = yield* from.next
    if (event === "Close") {
      yield* Effect.sync(() => reset(to))
      return false
    }
    if (event === "End") {
      yield* sockets.end(to)
      return false
    }
    if (fault._tag === "Delay" && direction === "ToClient") yield* Effect.sleep(fault.by)
    const passed = event.subarray(0, room)
    room -= passed.length
    yield* sockets.write(to, passed)
    yield* count(direction, passed.length)
  }
  return true
})

const relay = Effect.fnUntraced(function* (client: sockets.Inbox, target: Target, fault: CheckedFault, count: Count) {
  const socket = yield* sockets.connect(target.host ?? "127.0.0.1", target.port)
  if (socket === undefined) return
  yield* Effect.addFinalizer((exit) => release(socket, exit))
  const server = yield* sockets.inbox(socket)
  const pumps = [
    pump(client, socket, "FromClient", fault, count),
    pump(server, client.socket, "ToClient", fault, count)
  ].map((run) =>
    Effect.filterOrFail(
      run,
      (cut) => !cut,
      () => "Cut" as const
    )
  )
  const cut = yield* Effect.flip(Effect.all(pumps, { concurrency: "unbounded" })).pipe(Effect.option)
  if (Option.isNone(cut)) return
  reset(socket)
  if (fault._tag === "Finish") return yield* finish(client)
  reset(client.socket)
})

/** Answers the first bytes of the client with these, and ends the connection. */
const answer = Effect.fnUntraced(function* (client: sockets.Inbox, bytes: Uint8Array, count: Count) {
  const first = yield* client.next
  if (typeof first === "string") return
  yield* count("FromClient", first.length)
  yield* sockets.write(client.socket, bytes)
  yield* count("ToClient", bytes.length)
  yield* finish(client)
})

/** Runs one connection to its end. */
const handle = Effect.fnUntraced(function* (client: Socket, target: Target, fault: CheckedFault, count: Count) {
  if (fault._tag === "Refuse" || (fault._tag === "Reset" && fault.afterBytes === 0)) return reset(client)
  const inbox = yield* sockets.inbox(client)
  switch (fault._tag) {
    case "Silence":
      return yield* drain(inbox, count)
    case "Answer":
      return yield* answer(inbox, fault.bytes, count)
    case "Finish":
      return yield* fault.afterBytes === 0 ? finish(inbox) : relay(inbox, target, fault, count)
    case "Reset":
    case "Delay":
    case "PassThrough":
      return yield* relay(inbox, target, fault, count)
    default:
      return absurd<void>(fault)
  }
}, Effect.scoped)

/**
 * A proxy on a free port of 127.0.0.1 that leads to `target`. It passes everything through until told otherwise, and is
 * gone, with all its connections, when the scope closes.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Fault, FaultProxy } from "@agentweave/testkit"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const proxy = yield* FaultProxy.make({ port: 8443 })
 *   // ... connect the client to proxy.host and proxy.port, then break its response in the middle:
 *   yield* proxy.setFault(Fault.reset({ afterBytes: 5_000 }))
 *   yield* proxy.cutAll
 *   console.log(yield* proxy.connections)
 * })
 * ```
 */
export const make = Effect.fnUntraced(function* (
  options: Target
): Effect.fn.Return<FaultProxy, InvalidConfigError.InvalidConfigError, Scope.Scope> {
  const target = yield* decode(options)
  const records = yield* SubscriptionRef.make<ReadonlyArray<ProxiedConnection>>([])
  const choose = yield* Ref.make<(index: number) => Fault.Fault>(() => Fault.passThrough)
  const targetRef = yield* Ref.make(target)
  const fibers = yield* FiberSet.make<void>()
  const accepted = yield* Queue.unbounded<Socket>()
  const live = new Set<Socket>()
  yield* Effect.addFinalizer(() => Effect.sync(() => live.forEach(reset)))
  const listen = (port: number) =>
    sockets.listen(port, (socket) => {
      live.add(socket)
      socket.once("close", () => live.delete(socket))
      accepted.unsafeOffer(socket)
    })
  const listener = yield* Ref.make(Option.some(yield* listen(0)))
  const { port } = Option.getOrThrow(yield* Ref.get(listener))
  const stopListening = Effect.flatMap(
    Ref.getAndSet(listener, Option.none()),
    Option.match({ onNone: () => Effect.void, onSome: ({ close }) => close })
  )
  const hasEnded = yield* Ref.make(false)
  yield* Effect.addFinalizer(() => Effect.zipRight(Ref.set(hasEnded, true), stopListening))

  const update = (index: number, change: (connection: ProxiedConnection) => ProxiedConnection) =>
    SubscriptionRef.update(records, (all) =>
      all.map((connection) => (connection.index === index ? change(connection) : connection))
    )
  const count =
    (index: number): Count =>
    (direction, bytes) =>
      update(index, (connection) =>
        direction === "FromClient"
          ? { ...connection, fromClient: connection.fromClient + bytes }
          : { ...connection, toClient: connection.toClient + bytes }
      )
  yield* Queue.take(accepted).pipe(
    Effect.flatMap(
      Effect.fnUntraced(function* (socket) {
        const index = (yield* SubscriptionRef.get(records)).length
        const fault = (yield* Ref.get(choose))(index)
        const openedAt = yield* Clock.currentTimeMillis
        yield* SubscriptionRef.update(records, (all) => [
          ...all,
          { index, fault, openedAt, closedAt: undefined, fromClient: 0, toClient: 0 }
        ])
        const closed = Effect.flatMap(Clock.currentTimeMillis, (closedAt) =>
          update(index, (connection) => ({ ...connection, closedAt }))
        )
        const run = handle(socket, yield* Ref.get(targetRef), yield* checked(fault), count(index))
        yield* FiberSet.run(
          fibers,
          Effect.interruptible(run).pipe(Effect.onExit((exit) => Effect.zipRight(release(socket, exit), closed)))
        )
      }, Effect.uninterruptible)
    ),
    Effect.forever,
    forkScoped
  )

  const awaitConnections: FaultProxy["awaitConnections"] = (predicate) =>
    Stream.runHead(Stream.filter(records.changes, predicate)).pipe(Effect.map(Option.getOrElse(() => [])))
  const startListening = Effect.flatMap(Effect.zip(Ref.get(listener), Ref.get(hasEnded)), ([current, hasEnded]) =>
    Option.isSome(current) || hasEnded
      ? Effect.void
      : Effect.flatMap(listen(port), (next) => Ref.set(listener, Option.some(next)))
  )
  const setFaults: FaultProxy["setFaults"] = (next) => Effect.zipRight(Ref.set(choose, next), startListening)
  return {
    host: "127.0.0.1",
    port,
    setFaults,
    setFault: (fault) =>
      Effect.zipRight(decodeFault(fault), fault._tag === "Refuse" ? stopListening : setFaults(() => fault)),
    setTarget: (next) => Effect.flatMap(decode(next), (target) => Ref.set(targetRef, target)),
    cutAll: FiberSet.clear(fibers),
    connections: SubscriptionRef.get(records),
    open: Effect.map(SubscriptionRef.get(records), (all) => all.filter(isOpen).length),
    awaitConnections,
    awaitOpen: (wanted) => Effect.asVoid(awaitConnections((all) => all.filter(isOpen).length === wanted))
  }
})
