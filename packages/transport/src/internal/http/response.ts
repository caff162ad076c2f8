import * as Cookies from "@effect/platform/Cookies"
import type * as Headers from "@effect/platform/Headers"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as IncomingMessage from "@effect/platform/HttpIncomingMessage"
import * as UrlParams from "@effect/platform/UrlParams"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as Inspectable from "effect/Inspectable"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { serviceOf, withFiber } from "../fiber.js"
import type { Body, Reader } from "./responseBody.js"

/** A response dropped before its body was whole: the rest of the body is aborted, so that its connection comes back. */
const dropped = new FinalizationRegistry<Body>((body) => body.abandon())

const decoder = new TextDecoder()

const parseJson = (body: Body): unknown => {
  const text = decoder.decode(body.whole())
  return text === "" ? null : JSON.parse(text)
}

/** The limit that `HttpIncomingMessage.withMaxBodySize` has set, if any. */
const maxBodySize = (fiber: RuntimeFiber<unknown, unknown>): Option.Option<bigint> | undefined =>
  serviceOf(fiber, IncomingMessage.MaxBodySize)

const aLength = /^\d{1,15}$/

export class BodyResponse extends Inspectable.Class implements HttpClientResponse.HttpClientResponse, Reader {
  readonly [IncomingMessage.TypeId]: IncomingMessage.TypeId = IncomingMessage.TypeId
  readonly [HttpClientResponse.TypeId]: HttpClientResponse.TypeId = HttpClientResponse.TypeId
  readonly request: HttpClientRequest
  readonly status: number
  private readonly body: Body
  private readonly getHeaders: () => Headers.Headers
  private readonly getSetCookie: () => ReadonlyArray<string>
  private readonly address: string | undefined
  private readonly maxSize: number
  private cachedHeaders: Headers.Headers | undefined = undefined

  constructor(
    body: Body,
    request: HttpClientRequest,
    status: number,
    headers: () => Headers.Headers,
    setCookie: () => ReadonlyArray<string>,
    address: string | undefined,
    maxSize: number
  ) {
    super()
    this.body = body
    this.request = request
    this.status = status
    this.getHeaders = headers
    this.getSetCookie = setCookie
    this.address = address
    this.maxSize = maxSize
    if (body.isOpen) dropped.register(this, body, body)
  }

  failure(description: string, cause?: unknown): Effect.Effect<never, HttpClientError.ResponseError> {
    return Effect.fail(
      new HttpClientError.ResponseError({
        request: this.request,
        response: this,
        reason: "Decode",
        description,
        ...(cause === undefined ? undefined : { cause })
      })
    )
  }

  statedLength(): number | undefined {
    const text = this.headers["content-length"]
    return text !== undefined && aLength.test(text) ? Number(text) : undefined
  }

  get headers(): Headers.Headers {
    return (this.cachedHeaders ??= this.getHeaders())
  }

  get cookies(): Cookies.Cookies {
    return Cookies.fromSetCookie(this.getSetCookie())
  }

  get remoteAddress(): Option.Option<string> {
    return Option.fromNullable(this.address)
  }

  private decode<A>(read: (body: Body) => A, hasWaited: boolean): Effect.Effect<A, HttpClientError.ResponseError> {
    try {
      const result = Effect.succeed(read(this.body))
      this.body.wasRead(hasWaited)
      return result
    } catch (cause) {
      return Effect.fail(
        new HttpClientError.ResponseError({ request: this.request, response: this, reason: "Decode", cause })
      )
    }
  }

  /**
   * Runs `read` on the whole body. The reader keeps the response alive, and from here on answers for the body. A limit that
   * the reader has set for itself takes the place of the channel's.
   */
  private read<A>(read: (body: Body) => A): Effect.Effect<A, HttpClientError.ResponseError> {
    return withFiber((fiber) => {
      const own = maxBodySize(fiber)
      const limit = own === undefined || Option.isNone(own) ? this.maxSize : Number(own.value)
      if (this.body.isCollected(limit)) return this.decode(read, false)
      dropped.unregister(this.body)
      return Effect.flatMap(this.body.collected(this, limit), () => this.decode(read, true))
    })
  }

  get json(): Effect.Effect<unknown, HttpClientError.ResponseError> {
    return this.read(parseJson)
  }

  get text(): Effect.Effect<string, HttpClientError.ResponseError> {
    return this.read((body) => decoder.decode(body.whole()))
  }

  get urlParamsBody(): Effect.Effect<UrlParams.UrlParams, HttpClientError.ResponseError> {
    return this.read((body) => UrlParams.fromInput(new URLSearchParams(decoder.decode(body.whole()))))
  }

  get arrayBuffer(): Effect.Effect<ArrayBuffer, HttpClientError.ResponseError> {
    return this.read((body) => body.wholeBuffer())
  }

  get formData(): Effect.Effect<FormData, HttpClientError.ResponseError> {
    return Effect.flatMap(
      this.read((body) => new Uint8Array(body.whole())),
      (bytes) =>
        Effect.tryPromise({
          try: () =>
            new Response(bytes, { headers: { "content-type": this.headers["content-type"] ?? "" } }).formData(),
          catch: (cause) =>
            new HttpClientError.ResponseError({ request: this.request, response: this, reason: "Decode", cause })
        })
    )
  }

  get stream(): Stream.Stream<Uint8Array, HttpClientError.ResponseError> {
    return Stream.suspend(() => {
      dropped.unregister(this.body)
      return this.body.stream(this)
    })
  }

  toJSON(): unknown {
    return IncomingMessage.inspect(this, {
      _id: "@effect/platform/HttpClientResponse",
      request: this.request.toJSON(),
      status: this.status
    })
  }
}
