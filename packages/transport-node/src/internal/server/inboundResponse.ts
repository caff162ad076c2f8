import { type IncomingMessage, type OutgoingHttpHeader, type OutgoingHttpHeaders, ServerResponse } from "node:http"
import { nameOf } from "@agentweave/transport/RequestTelemetry"
import type { Answer } from "./answer.js"

/** The body of a response is not of the length that its head declares. */
class ResponseLengthError extends Error {
  override readonly name = "ResponseLengthError"
  constructor(declared: number, got: number) {
    super(`expected a response body of ${declared} bytes as its content-length says, got ${got}`)
  }
}

type Callback = (error?: Error | null) => void

const isCallback = (value: unknown): value is Callback => typeof value === "function"

const encodingOf = (value: unknown): BufferEncoding =>
  typeof value === "string" && Buffer.isEncoding(value) ? value : "utf8"

const lengthOf = (chunk: unknown, encoding: unknown): number =>
  typeof chunk === "string"
    ? Buffer.byteLength(chunk, encodingOf(encoding))
    : chunk instanceof Uint8Array
      ? chunk.byteLength
      : 0

/** To be asked when the response has closed. Node (20) calls a response finished whose last bytes it could not write. */
const isWhole = ({ failure, req, writableFinished }: InboundResponse): boolean =>
  failure === undefined && writableFinished && !req.socket.destroyed

/** The length of a response's body by its head; `undefined` where it says nothing, or there is no body to have one. */
const declaredLength = (response: InboundResponse, declared: unknown): number | undefined => {
  const length = declared ?? response.getHeader("content-length")
  return length === undefined ||
    response.req.method === "HEAD" ||
    response.statusCode === 204 ||
    response.statusCode === 304
    ? undefined
    : Number(length)
}

/**
 * A response that is whole or visibly is not (RFC 9112 section 8). Once it is destroyed nothing ends it in order; and it
 * is destroyed where its body is shorter or longer than its `content-length`, which would have the client take a part of
 * the next response for the rest of this one, or the other way round. The callback of `end` is called in any case: the
 * platform's handler waits for it, and would wait for ever for a client that has gone.
 */
export class InboundResponse<Request extends IncomingMessage = IncomingMessage>
  extends ServerResponse<Request>
  implements Answer
{
  /** The name of the error the response is cut for. */
  failure: string | undefined = undefined
  private declared: unknown = undefined
  private bodyLength = 0

  override writeHead(
    statusCode: number,
    statusMessage?: string,
    headers?: OutgoingHttpHeaders | Array<OutgoingHttpHeader>
  ): this
  override writeHead(statusCode: number, headers?: OutgoingHttpHeaders | Array<OutgoingHttpHeader>): this
  override writeHead(
    statusCode: number,
    second?: string | OutgoingHttpHeaders | Array<OutgoingHttpHeader>,
    third?: OutgoingHttpHeaders | Array<OutgoingHttpHeader>
  ): this {
    const headers = typeof second === "string" ? third : second
    this.declared = Array.isArray(headers) ? undefined : headers?.["content-length"]
    return typeof second === "string" ? super.writeHead(statusCode, second, third) : super.writeHead(statusCode, second)
  }

  override write(chunk: unknown, callback?: Callback): boolean
  override write(chunk: unknown, encoding: BufferEncoding, callback?: Callback): boolean
  override write(chunk: unknown, second?: BufferEncoding | Callback, callback?: Callback): boolean {
    this.bodyLength += lengthOf(chunk, second)
    const declared = declaredLength(this, this.declared)
    if (declared !== undefined && this.bodyLength > declared) {
      this.destroy(new ResponseLengthError(declared, this.bodyLength))
    }
    // There is no room and there will be none.
    if (this.failure !== undefined) return false
    return isCallback(second) || second === undefined
      ? super.write(chunk, second)
      : super.write(chunk, second, callback)
  }

  override end(callback?: () => void): this
  override end(chunk: unknown, callback?: () => void): this
  override end(chunk: unknown, encoding: BufferEncoding, callback?: () => void): this
  override end(first?: unknown, second?: unknown, third?: () => void): this {
    const chunk = isCallback(first) ? undefined : first
    const callback = [first, second, third].find(isCallback)
    if (!this.destroyed && this.failure === undefined) {
      this.bodyLength += lengthOf(chunk, second)
      const declared = declaredLength(this, this.declared)
      if (declared !== undefined && this.bodyLength !== declared) {
        this.destroy(new ResponseLengthError(declared, this.bodyLength))
      }
    }
    if (this.destroyed || this.failure !== undefined) {
      if (callback !== undefined) process.nextTick(callback)
      return this
    }
    if (callback !== undefined) this.once("close", callback)
    return chunk === undefined || chunk === null ? super.end() : super.end(chunk, encodingOf(second))
  }

  /** With an error the response is cut: nothing more is sent of it but what was written in this turn of the event loop. */
  override destroy(error?: Error): this {
    if (error === undefined || this.destroyed) return super.destroy(error)
    if (this.failure === undefined) setImmediate(() => super.destroy(error))
    this.failure ??= nameOf(error)
    return this
  }

  /** The answer to the request, for its record and its span. */
  get answer(): Answer {
    return this
  }

  get isWhole(): boolean {
    return isWhole(this)
  }
}

/** The answer of a response that may have lost the class it was made with. */
class PinnedAnswer implements Answer {
  private readonly response: InboundResponse

  constructor(response: InboundResponse) {
    this.response = response
  }

  get headersSent(): boolean {
    return this.response.headersSent
  }

  get statusCode(): number {
    return this.response.statusCode
  }

  get isWhole(): boolean {
    return isWhole(this.response)
  }

  get failure(): string | undefined {
    return this.response.failure
  }
}

const { destroy, end, write, writeHead } = InboundResponse.prototype

/**
 * A response for frameworks that give responses a prototype of their own, as Express does: what is checked here is on the
 * response itself. Middleware that puts another `write` or `end` there calls these.
 */
export class PinnedResponse<Request extends IncomingMessage = IncomingMessage> extends InboundResponse<Request> {
  constructor(...options: ConstructorParameters<typeof InboundResponse<Request>>) {
    super(...options)
    Object.assign(this, { destroy, end, write, writeHead })
  }

  override get answer(): Answer {
    return new PinnedAnswer(this)
  }
}
