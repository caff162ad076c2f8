import { IdentityProvider } from "@agentweave/spiffe"
import { WorkloadApi, type WorkloadApiEvent } from "@agentweave/workload-api"
import { Context, Effect, Layer, Logger, LogLevel, Queue, Stream } from "effect"

type Event = WorkloadApiEvent.WorkloadApiEvent

/** A provider on a real socket, and the events it emits. */
export const make = Effect.fnUntraced(function* (options: WorkloadApi.Options) {
  const events = yield* Queue.unbounded<Event>()
  const context = yield* Layer.build(
    WorkloadApi.layer({
      onEvent: (event) => Queue.offer(events, event),
      initialTimeout: "5 seconds",
      ...options
    }).pipe(Layer.provide(Logger.minimumLogLevel(LogLevel.None)))
  )
  const { agentHealth } = Context.get(context, WorkloadApi.WorkloadApi)
  const { changes, x509Context } = Context.get(context, IdentityProvider.IdentityProvider)
  /** The next event with this tag; those before it are dropped. */
  const nextEvent = <Tag extends Event["_tag"]>(tag: Tag) =>
    Stream.fromQueue(events).pipe(
      Stream.filter((event): event is Extract<Event, { _tag: Tag }> => event._tag === tag),
      Stream.runHead,
      Effect.flatten
    )
  return { changes, x509Context, agentHealth, nextEvent }
})

/** Reasons read better than errors in an expectation. */
export const reasonOf = <A>(effect: Effect.Effect<A, { readonly reason: string }>) =>
  Effect.match(effect, { onFailure: (error) => error.reason, onSuccess: () => "ok" })
