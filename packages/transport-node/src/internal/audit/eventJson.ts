import type { AuditEvent } from "@agentweave/transport/AuditEvent"

type RequestEvent = Extract<AuditEvent, { readonly _tag: "RequestStarted" | "RequestEnded" }>

/** Matches strings that JSON holds as they are: printable ASCII without quotation mark and backslash. */
const plain = /^[ !#-[\]-~]*$/

const quote = (text: string): string => (plain.test(text) ? `"${text}"` : JSON.stringify(text))

const number = (value: number): string => (Number.isFinite(value) ? `${value}` : "null")

/** JSON that is used again: in one piece from its second use on, for what consists of many is put together in each line anew. */
class Kept {
  private text: string
  private isWhole = false

  constructor(text: string) {
    this.text = text
  }

  get first(): string {
    return this.text
  }

  get again(): string {
    if (!this.isWhole) {
      this.isWhole = true
      this.text = Buffer.from(this.text).toString()
    }
    return this.text
  }
}

/** Connections, and peers, whose text is kept. */
const maxKept = 1_000

/** A longer text is not kept: paths are chosen by peers. */
const maxLength = 1_024

const keep = <A extends Kept>(kept: Map<string, A>, key: string, value: A): A => {
  if (value.first.length > maxLength) return value
  if (kept.size >= maxKept) kept.clear()
  kept.set(key, value)
  return value
}

/** The fields that all requests of a connection have alike, and their JSON. */
class Origin extends Kept {
  private readonly side: string
  private readonly address: string

  constructor({ address, connectionId, side }: RequestEvent) {
    super(`"side":"${side}","connectionId":${quote(connectionId)},"address":${quote(address)}`)
    this.side = side
    this.address = address
  }

  isOf({ address, side }: RequestEvent): boolean {
    return this.side === side && this.address === address
  }
}

/** The fields that a request of a peer often has from the one before, and their JSON. */
class Call extends Kept {
  private readonly method: string
  private readonly path: string
  private readonly attempt: number

  constructor({ attempt, method, path, peerId }: RequestEvent) {
    super(`"peerId":${quote(peerId)},"method":${quote(method)},"path":${quote(path)},"attempt":${number(attempt)}`)
    this.method = method
    this.path = path
    this.attempt = attempt
  }

  isOf({ attempt, method, path }: RequestEvent): boolean {
    return this.method === method && this.path === path && this.attempt === attempt
  }
}

/**
 * Events as JSON. Requests are by far the most of them: they are written out here, and what one has in common with those before
 * it is made once. That takes a third of the time of `JSON.stringify`.
 */
export class EventJson {
  /** By the connection. */
  private readonly origins = new Map<string, Origin>()
  /** By the peer. */
  private readonly calls = new Map<string, Call>()

  of(event: AuditEvent): string {
    if (event._tag !== "RequestStarted" && event._tag !== "RequestEnded") return JSON.stringify(event)
    const { _tag, requestId, time, traceId } = event
    const trace = traceId === undefined ? "" : `,"traceId":${quote(traceId)}`
    const begin = `{"_tag":"${_tag}","time":${number(time)},${this.origin(event)},"requestId":${quote(requestId)}${trace},${this.call(event)}`
    if (_tag === "RequestStarted") return `${begin}}`
    const { durationMillis, error, status } = event
    const outcome = `${status === undefined ? "" : `,"status":${number(status)}`}${error === undefined ? "" : `,"error":${quote(error)}`}`
    return `${begin}${outcome},"durationMillis":${number(durationMillis)}}`
  }

  private origin(event: RequestEvent): string {
    const known = this.origins.get(event.connectionId)
    return known?.isOf(event) ? known.again : keep(this.origins, event.connectionId, new Origin(event)).first
  }

  private call(event: RequestEvent): string {
    const known = this.calls.get(event.peerId)
    return known?.isOf(event) ? known.again : keep(this.calls, event.peerId, new Call(event)).first
  }
}
