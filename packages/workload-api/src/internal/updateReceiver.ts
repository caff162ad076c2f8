/** An update of the agent, from its message to the state: what is used of it, and what is told. */
import { type SpiffeId, X509BundleSet, X509Context, type X509Svid } from "@agentweave/spiffe"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as State from "./identityState.js"
import { type Reporting, svidFields } from "./reporting.js"
import type { StateClock } from "./stateClock.js"
import type { Delivered, Refusal } from "./updateReader.js"

/** The SVID to use of those that the agent delivers. */
export type SvidSelection = { readonly hint: string } | { readonly spiffeId: SpiffeId.SpiffeId }

/** The inputs of reading a message besides itself. */
export interface ReadContext {
  /** Milliseconds since the epoch. */
  readonly now: number
  /** The bundles in use, whose certificates need not be read again. */
  readonly known: X509BundleSet.X509BundleSet
}

export type Read<Message> = (message: Message, context: ReadContext) => Either.Either<Delivered, Refusal>

/** The SVID the program asked for, else the agent's first (SPIFFE_Workload_API section 8). */
const choose = ({ svids }: Delivered, select: SvidSelection | undefined): X509Svid.X509Svid | undefined => {
  if (select === undefined) return svids[0]
  return svids.find((svid) => ("hint" in select ? svid.hint === select.hint : svid.spiffeId === select.spiffeId))
}

const describeSelection = (select: SvidSelection | undefined): string =>
  select === undefined ? "the default SVID" : "hint" in select ? `hint ${JSON.stringify(select.hint)}` : select.spiffeId

const sameSvids = (self: X509Context.X509Context, that: X509Context.X509Context): boolean =>
  self.svids.length === that.svids.length &&
  self.svids.every((svid, index) => {
    const other = that.svids[index]
    return svid.fingerprint === other?.fingerprint && svid.hint === other.hint
  })

/** After a reconnect the agent repeats itself: what did not change is no rotation. */
const keepIfSame = (
  known: X509Context.X509Context | undefined,
  next: X509Context.X509Context
): X509Context.X509Context =>
  known !== undefined && known.bundles.generation === next.bundles.generation && sameSvids(known, next) ? known : next

export interface Updates<Message> {
  /** Takes an update into use; true when it could be read. */
  readonly receive: (message: Message) => Effect.Effect<boolean>
  /** The agent has taken the identity away: it is not used any more. */
  readonly withdraw: (description: string) => Effect.Effect<void>
}

export const make = <Message>(
  { change, state, watch }: StateClock,
  { emit, reportBundles, publish }: Reporting,
  { read, select }: { readonly read: Read<Message>; readonly select: SvidSelection | undefined }
): Updates<Message> => {
  const withdraw = Effect.fnUntraced(function* (description: string) {
    const before = yield* SubscriptionRef.get(state)
    const after = yield* change((state) => State.withdrawn(state, description))
    if (before.serving !== after.serving || before.upcoming !== after.upcoming) {
      yield* emit({ _tag: "Withdrawn", description })
    }
  })

  const lacksOurs = (description: string) =>
    Effect.zipRight(withdraw(description), publish({ _tag: "NotSelected", description }))

  const accept = Effect.fnUntraced(function* (delivered: Delivered) {
    yield* reportBundles(delivered)
    const svid = choose(delivered, select)
    if (svid === undefined) {
      return yield* lacksOurs(
        `expected an SVID for ${describeSelection(select)}, got none of ${delivered.svids.length}`
      )
    }
    yield* publish({ _tag: "Usable" })
    const others = delivered.svids.filter((other) => other !== svid)
    const context = X509Context.make({ svid, others, bundles: delivered.bundles })
    const now = yield* Clock.currentTimeMillis
    const before = yield* SubscriptionRef.get(state)
    const next = keepIfSame(before.upcoming, keepIfSame(before.serving, context))
    yield* change((state) => State.received(state, next, now))
    yield* watch
    if (next !== context) return
    yield* emit({
      _tag: "Updated",
      ...svidFields(svid),
      notBefore: svid.notBefore,
      trustDomains: Array.from(context.bundles.bundles.keys()),
      bundleGeneration: context.bundles.generation
    })
  })

  const receive = Effect.fnUntraced(function* (message: Message) {
    const now = yield* Clock.currentTimeMillis
    const { serving, upcoming } = yield* SubscriptionRef.get(state)
    const known = (upcoming ?? serving)?.bundles ?? X509BundleSet.empty
    const delivered = read(message, { now, known })
    if (Either.isLeft(delivered)) {
      yield* change((state) => State.faulty(state, delivered.left.description))
      yield* emit({ _tag: "UpdateDiscarded", ...delivered.left })
      return false
    }
    yield* accept(delivered.right)
    return true
  })

  return { receive, withdraw }
}
