import type { IncomingHttpHeaders } from "node:http"
import type { Dispatcher } from "undici"

type Handler = Dispatcher.DispatchHandler

/** Header fields in the order of the wire, names and values by turns. */
export type RawHeaders = ReadonlyArray<readonly [name: string, value: string]>

const bytesOf = (headers: RawHeaders): Array<Buffer> =>
  headers.flatMap(([name, value]) => [Buffer.from(name, "latin1"), Buffer.from(value, "latin1")])

const recordOf = (headers: RawHeaders): IncomingHttpHeaders => {
  const record: Record<string, string | Array<string>> = Object.create(null)
  for (const [name, value] of headers) {
    const before = record[name]
    record[name] = before === undefined ? value : Array.isArray(before) ? [...before, value] : [before, value]
  }
  return record
}

/** Pauses, resumes and aborts a request for its handler. */
class Controller implements Dispatcher.DispatchController {
  aborted = false
  paused = false
  reason: Error | null = null
  rawHeaders: Array<Buffer> = []
  rawTrailers: Array<Buffer> = []
  onResume: () => void = () => {}
  private readonly onAbort: () => void

  constructor(onAbort: () => void) {
    this.onAbort = onAbort
  }

  abort(reason?: Error): void {
    if (this.aborted) return
    this.aborted = true
    this.reason = reason ?? new DOMException("expected the request to go on, it was aborted", "AbortError")
    this.onAbort()
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
    this.onResume()
  }
}

/**
 * The handler of a dispatched request. There are two kinds: those of undici 7 and later, and those before, which the `fetch`
 * of Node 20 to 24 still has.
 */
export class DispatchedHandler {
  readonly controller: Controller
  private readonly handler: Handler
  private readonly isNew: boolean
  private isOver = false

  constructor(handler: Handler, onAbort: () => void) {
    this.handler = handler
    this.isNew = handler.onRequestStart !== undefined
    this.controller = new Controller(onAbort)
  }

  start(): void {
    const { controller, handler } = this
    if (this.isNew) handler.onRequestStart?.(controller, {})
    else handler.onConnect?.((reason) => controller.abort(reason))
  }

  /** The head of the response. */
  head(status: number, headers: RawHeaders): void {
    const { controller, handler } = this
    controller.rawHeaders = bytesOf(headers)
    if (this.isNew) handler.onResponseStart?.(controller, status, recordOf(headers), "")
    else if (handler.onHeaders?.(status, controller.rawHeaders, () => controller.resume(), "") === false)
      controller.pause()
  }

  data(chunk: Uint8Array): void {
    const { controller, handler } = this
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    if (this.isNew) handler.onResponseData?.(controller, bytes)
    else if (handler.onData?.(bytes) === false) controller.pause()
  }

  end(): void {
    if (this.isOver) return
    this.isOver = true
    if (this.isNew) this.handler.onResponseEnd?.(this.controller, {})
    else this.handler.onComplete?.([])
  }

  fail(error: Error): void {
    if (this.isOver) return
    this.isOver = true
    if (this.isNew) this.handler.onResponseError?.(this.controller, error)
    else this.handler.onError?.(error)
  }
}
