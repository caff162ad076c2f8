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
    const declared = this.declaredLength
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
      const declared = this.declaredLength
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

  /** To be asked when the response has closed. Node (20) calls a response finished whose last bytes it could not write. */
  get isWhole(): boolean {
    return this.failure === undefined && this.writableFinished && !this.req.socket.destroyed
  }

  /** The body's length by its head; `undefined` where it says nothing, or there is no body to have one. */
  private get declaredLength(): number | undefined {
    const declared = this.declared ?? this.getHeader("content-length")
    return declared === undefined || this.req.method === "HEAD" || this.statusCode === 204 || this.statusCode === 304
      ? undefined
      : Number(declared)
  }
}
