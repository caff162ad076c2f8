/** A tracer that keeps its spans, for tests. */
import { type Exit, Option, Tracer } from "effect"

export interface Recorded {
  readonly name: string
  readonly kind: Tracer.SpanKind
  /** Name of the span above, or `external` for one of another process. */
  readonly parent: string | undefined
  readonly parentId: string | undefined
  readonly spanId: string
  readonly traceId: string
  readonly attributes: Record<string, unknown>
  readonly events: ReadonlyArray<unknown>
  readonly exit: Exit.Exit<unknown, unknown> | undefined
}

type Kept = Tracer.Span & { exit?: Exit.Exit<unknown, unknown>; readonly events: Array<unknown> }

let next = 0

/** `waiters` are called after each span's end. */
export const makeTracer = () => {
  const spans: Array<Kept> = []
  const waiters = new Set<() => void>()
  const trace = String(++next).padStart(32, "f")
  const tracer = Tracer.make({
    span: (name, parent, context, links, startTime, kind) => {
      const attributes = new Map<string, unknown>()
      const events: Array<unknown> = []
      const span: Kept = {
        _tag: "Span",
        name,
        spanId: String(++next).padStart(16, "0"),
        traceId: Option.match(parent, { onNone: () => trace, onSome: ({ traceId }) => traceId }),
        parent,
        context,
        status: { _tag: "Started", startTime },
        attributes,
        events,
        links,
        sampled: true,
        kind,
        attribute: (key, value) => attributes.set(key, value),
        event: (...event) => events.push(event),
        addLinks: () => {},
        end: (_time, exit) => {
          span.exit = exit
          for (const waiter of Array.from(waiters)) waiter()
        }
      }
      spans.push(span)
      return span
    },
    context: (run) => run()
  })
  const recorded = (): ReadonlyArray<Recorded> =>
    spans.map(({ attributes, events, exit, kind, name, parent, spanId, traceId }) => ({
      name,
      kind,
      spanId,
      traceId,
      parent: Option.getOrUndefined(Option.map(parent, (above) => (above._tag === "Span" ? above.name : "external"))),
      parentId: Option.getOrUndefined(Option.map(parent, (above) => above.spanId)),
      attributes: Object.fromEntries(attributes),
      events,
      exit
    }))
  /** What an exporter would make of the spans. */
  const exported = (): ReadonlyArray<unknown> =>
    recorded().map(({ exit, ...span }) => [span, exit?._tag === "Failure" ? exit.cause : undefined])
  return { tracer, recorded, exported, waiters, trace }
}
