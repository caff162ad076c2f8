/** What the suites of a connection's life are run on: the sides of connections, and the record of each. */
import type { SpiffeId } from "@agentweave/spiffe"
import { type AuditEvent, AuditLog, type Connector, PeerMatcher, TransportConfig } from "@agentweave/transport"
import { HttpClientRequest } from "@effect/platform"
import { Deferred, Effect, Either, Fiber, Layer, type Scope } from "effect"

/**
 * What a peer presents:
 * - `Proper`: what is asked for, for ten hours. `ShortLived`: the same for ten minutes.
 * - `Unexpected`: another SPIFFE ID. `Untrusted`: a certificate of another CA. `Expired`: one that has ended.
 * - `Silent`: nothing, its connection stays open.
 */
export type Presented = "Proper" | "ShortLived" | "Unexpected" | "Untrusted" | "Expired" | "Silent"

/** How far a request has come: nothing of its response is there, or the first half of its body. */
export type Progress = "Unanswered" | "HalfAnswered"

/** What is asked for to come so far: its response, or the rest of it, is sent when the test says so. */
export const paths = { Unanswered: "/held", HalfAnswered: "/half" } as const

/** One connection between us and a peer. */
export interface Opened {
  /** One request, to its end: whether it was answered. */
  readonly request: Effect.Effect<boolean>
  /** A request has come so far, and is answered when `answer` is run. */
  readonly begin: (progress: Progress) => Effect.Effect<{ readonly answer: Effect.Effect<void> }, never, Scope.Scope>
  /** The peer ends the connection. */
  readonly leave: Effect.Effect<void>
}

/** One side of connections, made anew for each test; `identity` is ours. */
export interface Side {
  readonly identity: {
    readonly id: SpiffeId.SpiffeId
    /** Another SVID of the same CA. */
    readonly renew: Effect.Effect<void>
    /** It is taken back. */
    readonly withdraw: Effect.Effect<void>
    /** The CA of the peers is no longer in our bundles. */
    readonly distrustPeers: Effect.Effect<void>
    /** Nor is that of the SVID we have shown, which has a successor of a new CA. */
    readonly replaceAuthority: Effect.Effect<void>
  }
  readonly peer: SpiffeId.SpiffeId
  /** Connects to a peer, or has one connect to us. It may fail, or end before the peer is accepted or refused. */
  readonly meet: (presented: Presented) => Effect.Effect<Opened, unknown, Scope.Scope>
  /** What stands on record of an attempt that the end of our layer has cut. */
  readonly abandoned: string
  /** Ends our layer's scope. */
  readonly end: Effect.Effect<void>
}

/** Our audit log, which can be waited for and refuse events. */
export class LifeRecord {
  readonly events: Array<AuditEvent.AuditEvent> = []
  refused: AuditEvent.AuditEvent["_tag"] | undefined
  private readonly waiters = new Set<() => void>()

  readonly layer = Layer.succeed(AuditLog.AuditLog, {
    unsafeRecord: (event) => {
      if (event._tag === this.refused) return new AuditLog.AuditError({ reason: "Full", description: "by the test" })
      this.events.push(event)
      for (const waiter of Array.from(this.waiters)) waiter()
      return undefined
    }
  })

  get tags(): ReadonlyArray<string> {
    return this.events.map((event) => {
      switch (event._tag) {
        case "ConnectionRefused":
          return `Refused ${event.error} ${event.reason}`
        case "ConnectionClosed":
          return `Closed ${event.reason}`
        case "RequestEnded":
          return `RequestEnded ${event.error ?? event.status}`
        default:
          return event._tag.replace(/^Connection/, "")
      }
    })
  }

  all<Tag extends AuditEvent.AuditEvent["_tag"]>(tag: Tag) {
    return this.events.filter((event): event is Extract<AuditEvent.AuditEvent, { _tag: Tag }> => event._tag === tag)
  }

  /** Waits until so many events have this tag, with its reason where it has one. */
  until(tag: string, count = 1): Effect.Effect<void> {
    return Effect.async((resume) => {
      const look = () => {
        if (this.tags.filter((seen) => seen.startsWith(tag)).length < count) return
        this.waiters.delete(look)
        resume(Effect.void)
      }
      this.waiters.add(look)
      look()
      return Effect.sync(() => this.waiters.delete(look))
    })
  }
}

/** Limits that hold on every side of this suite. */
export const limits = { handshake: "10 seconds", age: "1 hour", grace: "2 hours" } as const

const config = Either.getOrThrow(
  TransportConfig.make({ connectTimeout: limits.handshake, timeout: limits.grace, maxConnectionAge: limits.age })
)

/** What a side that asks for connections is made of: a connector, and where a peer is that presents this. */
export interface Asking {
  readonly connector: Connector.Connector["Type"]
  readonly peer: SpiffeId.SpiffeId
  readonly record: LifeRecord
  readonly find: (presented: Presented) => Effect.Effect<
    {
      readonly host: string
      readonly port: number
      /** Answers what is asked for under one of the paths above. */
      readonly answer: Effect.Effect<void>
      readonly leave: Effect.Effect<void>
    },
    unknown,
    Scope.Scope
  >
}

/** One exchange, whose response is read to its end. */
const exchange = (
  connection: Connector.Connection,
  path: string,
  onHead: Effect.Effect<unknown> = Effect.void
): Effect.Effect<boolean> =>
  Effect.withFiberRuntime<boolean, unknown>((fiber) =>
    Effect.async((resume) => {
      if (!connection.isUsable()) return resume(Effect.succeed(false))
      const cancel = connection.unsafeStart(
        { request: HttpClientRequest.get(path), path, fiber, onSettled: () => {} },
        (result) =>
          resume(
            Effect.as(
              Effect.flatMap(result, ({ text }) => Effect.zipRight(onHead, text)),
              true
            )
          )
      )
      return Effect.sync(cancel)
    })
  ).pipe(Effect.orElseSucceed(() => false))

/** `meet` of a side that asks for connections. */
export const meetBy =
  ({ connector, find, peer, record }: Asking): Side["meet"] =>
  (presented) =>
    Effect.gen(function* () {
      const { answer, host, leave, port } = yield* find(presented)
      const matcher = PeerMatcher.exactly(peer)
      const connection = yield* connector.connect({ matcher, host, port, config, onClose: () => {} })
      const begin: Opened["begin"] = Effect.fnUntraced(function* (progress) {
        const started = record.all("RequestStarted").length
        const hasHead = yield* Deferred.make<void>()
        const onHead = Deferred.succeed(hasHead, undefined)
        const running = yield* Effect.forkScoped(exchange(connection, paths[progress], onHead))
        yield* record.until("RequestStarted", started + 1)
        if (progress === "HalfAnswered") yield* Effect.raceFirst(Deferred.await(hasHead), Fiber.await(running))
        return { answer: Effect.zipRight(answer, Effect.asVoid(Fiber.await(running))) }
      })
      return { request: exchange(connection, "/"), begin, leave }
    })
