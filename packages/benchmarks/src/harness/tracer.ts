/** A tracer as a program has one that exports: spans with identifiers and attributes, some of them kept, none sent. */
import { randomFillSync } from "node:crypto"
import { type Context, type Exit, Option, Tracer } from "effect"

/** Random bytes, drawn many at a time. */
const pool = Buffer.alloc(4096)
let used = pool.length

const identifier = (bytes: number): string => {
  if (used + bytes > pool.length) {
    randomFillSync(pool)
    used = 0
  }
  used += bytes
  return pool.toString("hex", used - bytes, used)
}

/** The last spans that ended, as a batch that waits for its export. */
const ended: Array<Tracer.Span> = []
const batch = 512

class Span implements Tracer.Span {
  readonly _tag = "Span"
  readonly spanId = identifier(8)
  readonly traceId: string
  readonly sampled = true
  readonly attributes = new Map<string, unknown>()
  readonly name: string
  readonly parent: Option.Option<Tracer.AnySpan>
  readonly context: Context.Context<never>
  readonly links: ReadonlyArray<Tracer.SpanLink>
  readonly kind: Tracer.SpanKind
  status: Tracer.SpanStatus

  constructor(
    name: string,
    parent: Option.Option<Tracer.AnySpan>,
    context: Context.Context<never>,
    links: ReadonlyArray<Tracer.SpanLink>,
    startTime: bigint,
    kind: Tracer.SpanKind
  ) {
    this.name = name
    this.parent = parent
    this.context = context
    this.links = links
    this.kind = kind
    this.traceId = Option.isSome(parent) ? parent.value.traceId : identifier(16)
    this.status = { _tag: "Started", startTime }
  }

  attribute(key: string, value: unknown): void {
    this.attributes.set(key, value)
  }

  event(): void {}

  addLinks(): void {}

  end(endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    this.status = { _tag: "Ended", startTime: this.status.startTime, endTime, exit }
    if (ended.length === batch) ended.length = 0
    ended.push(this)
  }
}

export const tracer: Tracer.Tracer = Tracer.make({
  span: (name, parent, context, links, startTime, kind) => new Span(name, parent, context, links, startTime, kind),
  context: (run) => run()
})
