import { IdentityProvider, type X509Context } from "@agentweave/spiffe"
import {
  WorkloadApi,
  WorkloadApiClient,
  WorkloadApiError,
  type WorkloadApiEvent,
  WorkloadMessage
} from "@agentweave/workload-api"
import { Clock, Context, Effect, Exit, Layer, Mailbox, Queue, type Redacted, Ref, Stream } from "effect"
import { encode } from "./messages.js"

export interface Call {
  /** When it was made, by the test's clock. */
  readonly at: number
  readonly push: (context: X509Context.X509Context) => Effect.Effect<void>
  readonly pushMessage: (message: WorkloadMessage.X509SvidResponse) => Effect.Effect<void>
  readonly pushBytes: (bytes: Redacted.Redacted<Uint8Array>) => Effect.Effect<void>
  readonly fail: (reason: WorkloadApiError.WorkloadApiErrorReason) => Effect.Effect<void>
  readonly end: Effect.Effect<void>
}

/** An agent without a wire: every call is handed to the test, which decides what becomes of it. */
export const makeClient = Effect.gen(function* () {
  const calls = yield* Queue.unbounded<Call>()
  const open = yield* Ref.make(0)
  const x509Svids = Stream.unwrapScoped(
    Effect.gen(function* () {
      const mailbox = yield* Mailbox.make<Redacted.Redacted<Uint8Array>, WorkloadApiError.WorkloadApiError>()
      yield* Effect.acquireRelease(
        Ref.update(open, (count) => count + 1),
        () => Ref.update(open, (count) => count - 1)
      )
      yield* Queue.offer(calls, {
        at: yield* Clock.currentTimeMillis,
        push: (context) => mailbox.offer(encode(context)),
        pushMessage: (message) => mailbox.offer(WorkloadMessage.encodeX509SvidResponse(message)),
        pushBytes: (bytes) => mailbox.offer(bytes),
        fail: (reason) =>
          mailbox.fail(new WorkloadApiError.WorkloadApiError({ reason, description: `the test says ${reason}` })),
        end: mailbox.done(Exit.void)
      })
      return Mailbox.toStream(mailbox)
    })
  )
  return {
    client: WorkloadApiClient.WorkloadApiClient.of({ x509Svids, x509Bundles: Stream.never }),
    nextCall: Queue.take(calls),
    /** Calls that wait to be looked at. */
    pendingCalls: Queue.size(calls),
    /** Calls that are open. */
    openCalls: Ref.get(open)
  }
})

/** A provider on a scripted agent, and the events it emits. */
export const make = Effect.fnUntraced(function* (options: WorkloadApi.ProviderOptions = {}) {
  const agent = yield* makeClient
  const events = yield* Queue.unbounded<WorkloadApiEvent.WorkloadApiEvent>()
  const layer = WorkloadApi.layerClient({
    onEvent: (event) => Queue.offer(events, event),
    ...options
  }).pipe(Layer.provide(Layer.succeed(WorkloadApiClient.WorkloadApiClient, agent.client)))
  const context = yield* Layer.build(layer)
  const identity = Context.get(context, IdentityProvider.IdentityProvider)
  const api = Context.get(context, WorkloadApi.WorkloadApi)
  /** The next event with this tag; those before it are dropped. */
  const nextEvent = <Tag extends WorkloadApiEvent.WorkloadApiEvent["_tag"]>(tag: Tag) =>
    Stream.fromQueue(events).pipe(
      Stream.filter((event): event is Extract<WorkloadApiEvent.WorkloadApiEvent, { _tag: Tag }> => event._tag === tag),
      Stream.runHead,
      Effect.flatten
    )
  return { ...agent, identity, agentHealth: api.agentHealth, events, nextEvent }
})
