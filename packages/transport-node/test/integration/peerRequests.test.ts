/** What our client sends for a request, beside what undici, `node:https` and `fetch` send for it. */
import { Readable } from "node:stream"
import * as HttpBody from "@effect/platform/HttpBody"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { realTime } from "./fixture.js"
import { type Ask, type Client, clients, makeBench, type Sent } from "./peerClients.js"

/** Why a client sends something else than ours does. A reason that holds no more is an error too. */
type Differences = Partial<Record<Exclude<Client, "ours">, string>>

/** What of a request is compared: fields that each client adds of its own accord are left out. */
const own = new Set([
  "connection",
  "user-agent",
  "accept",
  "accept-language",
  "accept-encoding",
  "sec-fetch-mode",
  "host"
])
const shown = (sent: Sent | undefined): unknown =>
  sent === undefined
    ? "nothing"
    : {
        line: sent.line,
        body: sent.body.replaceAll(/-{4,}[\w-]*formdata-[\w-]+/g, "boundary"),
        headers: Object.fromEntries(
          Object.entries(sent.headers)
            .filter(([name]) => !own.has(name))
            .map(([name, value]): [string, string] => [
              name,
              value.startsWith("multipart/form-data; boundary=") ? "multipart" : value
            ])
            .sort(([a], [b]) => (a < b ? -1 : 1))
        )
      }

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const blob = () => new Blob(["of a ", "blob"], { type: "text/x-blob" })
const form = () => {
  const form = new FormData()
  form.append("name", "välue")
  form.append("file", new File(["content"], "a file.txt", { type: "text/plain" }))
  return form
}
/** Names that must be escaped, values with line feeds of both kinds, files without a name, a type or bytes. */
const oddForm = () => {
  const form = new FormData()
  form.append('quo"te\r\nname', "line\nfeed\r\nand\rreturn")
  form.append("ünïcode", "日本")
  form.append("", "")
  form.append("again", "one")
  form.append("again", "two")
  form.append("file", new File(["a"], 'fi"le\n.txt'))
  form.append("blob", new Blob(["b"], { type: "Text/X-Blob" }))
  form.append("nothing", new File([], "", { type: "image/png" }))
  return form
}
const largeForm = () => {
  const form = new FormData()
  form.append("large", new Blob(["0123456789".repeat(30_000)]), "large.bin")
  form.append("after", "it")
  return form
}
const pieces = () => ["one ", "two ", "three"].map(bytes)
async function* generated() {
  yield* pieces()
}

const https = {
  form: "takes strings, bytes and streams only",
  raw: "sends what it is given, without normalizing"
}
const fetchTypes = "names the type of a text by itself"

interface Row {
  readonly ask: Ask
  readonly line?: string
  readonly differs?: Differences
}

const post = (body: () => unknown, httpBody?: () => HttpBody.HttpBody): Ask => ({
  method: "POST",
  body,
  ...(httpBody === undefined ? undefined : { httpBody })
})

const bodies: Record<string, Row> = {
  "nothing, by POST": { ask: { method: "POST" } },
  "nothing, by PUT": { ask: { method: "PUT" } },
  "nothing, by PATCH": { ask: { method: "PATCH" } },
  "nothing, by DELETE": { ask: { method: "DELETE" } },
  "nothing, by OPTIONS": { ask: { method: "OPTIONS" } },
  "nothing, by HEAD": { ask: { method: "HEAD" } },
  "a text": {
    ask: {
      ...post(
        () => "a text",
        () => HttpBody.text("a text")
      ),
      headers: { "content-type": "text/plain" }
    }
  },
  "an empty text": {
    ask: {
      ...post(
        () => "",
        () => HttpBody.text("")
      ),
      headers: { "content-type": "text/plain" }
    }
  },
  "a text beyond ASCII": {
    ask: {
      ...post(
        () => "日本 ü",
        () => HttpBody.text("日本 ü")
      ),
      headers: { "content-type": "text/plain" }
    }
  },
  "a raw text": { ask: post(() => "raw text"), differs: { fetch: fetchTypes } },
  "an empty raw text": { ask: post(() => ""), differs: { fetch: fetchTypes } },
  bytes: {
    ask: {
      ...post(
        () => bytes("bytes"),
        () => HttpBody.uint8Array(bytes("bytes"))
      ),
      headers: { "content-type": "application/octet-stream" }
    }
  },
  "no bytes": {
    ask: {
      ...post(
        () => bytes(""),
        () => HttpBody.uint8Array(bytes(""))
      ),
      headers: { "content-type": "application/octet-stream" }
    }
  },
  "100 KiB of bytes": {
    ask: {
      ...post(
        () => Buffer.alloc(100 * 1024, "x"),
        () => HttpBody.uint8Array(Buffer.alloc(100 * 1024, "x"))
      ),
      headers: { "content-type": "application/octet-stream" }
    }
  },
  "raw bytes": { ask: post(() => bytes("raw bytes")) },
  "a raw Buffer": { ask: post(() => Buffer.from("a buffer")) },
  "an ArrayBuffer": { ask: post(() => bytes("an array buffer").buffer), differs: { https: https.form } },
  "a DataView": {
    ask: post(() => new DataView(bytes("a data view").buffer, 2, 4)),
    differs: { https: https.form }
  },
  "a Uint16Array": { ask: post(() => new Uint16Array([0x4141, 0x4242])), differs: { https: https.form } },
  JSON: {
    ask: {
      ...post(
        () => '{"a":"ü"}',
        () => HttpBody.unsafeJson({ a: "ü" })
      ),
      headers: { "content-type": "application/json" }
    }
  },
  "URL parameters": {
    ask: {
      ...post(
        () => "a=1&b=%C3%BC+x",
        () =>
          HttpBody.urlParams([
            ["a", "1"],
            ["b", "ü x"]
          ])
      ),
      headers: { "content-type": "application/x-www-form-urlencoded" }
    }
  },
  URLSearchParams: {
    ask: post(() => new URLSearchParams({ a: "1", b: "ü x" })),
    differs: { undici: "takes them for an iterable of pieces, and fails", https: https.form }
  },
  "a form": {
    ask: post(form, () => HttpBody.formData(form())),
    differs: { undici: "knows its own class of forms only", https: https.form }
  },
  "a raw form": {
    ask: post(form),
    differs: { undici: "knows its own class of forms only", https: https.form }
  },
  "a form of odd parts": {
    ask: post(oddForm, () => HttpBody.formData(oddForm())),
    differs: { undici: "knows its own class of forms only", https: https.form }
  },
  "a large form": {
    ask: post(largeForm, () => HttpBody.formData(largeForm())),
    differs: { undici: "knows its own class of forms only", https: https.form }
  },
  "an empty form": {
    ask: post(
      () => new FormData(),
      () => HttpBody.formData(new FormData())
    ),
    differs: { undici: "knows its own class of forms only", https: https.form }
  },
  "a blob": { ask: post(blob), differs: { https: https.form } },
  "a stream": {
    ask: {
      ...post(generated, () => HttpBody.stream(Stream.fromIterable(pieces()))),
      headers: { "content-type": "application/octet-stream" }
    },
    differs: { https: https.form }
  },
  "a stream that says how long it is": {
    ask: {
      ...post(generated, () => HttpBody.stream(Stream.fromIterable(pieces()), "application/octet-stream", 13)),
      headers: { "content-type": "application/octet-stream", "content-length": "13" }
    },
    differs: { https: https.form }
  },
  "an empty stream": {
    ask: {
      ...post(
        () => Readable.from([]),
        () => HttpBody.stream(Stream.empty)
      ),
      headers: { "content-type": "application/octet-stream" }
    }
  },
  "a Readable": { ask: post(() => Readable.from(pieces())) },
  "a Readable of texts": { ask: post(() => Readable.from(["one ", "two"])) },
  "a web stream": {
    ask: post(() => Readable.toWeb(Readable.from(pieces()))),
    differs: { https: https.form }
  },
  "an async generator": { ask: post(() => generated()), differs: { https: https.form } },
  "an array of pieces": {
    ask: post(pieces),
    differs: { https: https.form, fetch: "makes a text of an array" }
  },
  "an object that is no body": {
    ask: post(() => ({ a: 1 })),
    differs: { fetch: "makes a text of an object" }
  },
  "a number": { ask: post(() => 17), differs: { fetch: "makes a text of a number" } }
}

const urls: Record<string, Row> = {
  "/": { ask: {} },
  "/a/b?c=d&e": { ask: { path: "/a/b?c=d&e" } },
  "/a//b/": { ask: { path: "/a//b/" } },
  "/?": { ask: { path: "/?" }, line: "GET /?" },
  "/a%20b%2Fc%zz": { ask: { path: "/a%20b%2Fc%zz" } },
  "/.well-known/x": { ask: { path: "/.well-known/x" } },
  "/a/../b": { ask: { path: "/a/../b" }, line: "GET /b", differs: { undici: https.raw, https: https.raw } },
  "/../../b": { ask: { path: "/../../b" }, line: "GET /b", differs: { undici: https.raw, https: https.raw } },
  "/a/./b/.": { ask: { path: "/a/./b/." }, line: "GET /a/b/", differs: { undici: https.raw, https: https.raw } },
  "/a/%2e%2E/b": { ask: { path: "/a/%2e%2E/b" }, line: "GET /b", differs: { undici: https.raw, https: https.raw } },
  "/a/..b/c..": { ask: { path: "/a/..b/c.." } },
  "/ü": { ask: { path: "/ü" }, line: "GET /%C3%BC", differs: { undici: "refuses it", https: "refuses it" } },
  "/a b": { ask: { path: "/a b" }, line: "GET /a%20b", differs: { undici: "refuses it", https: "refuses it" } },
  '/"<>`{}': {
    ask: { path: '/"<>`{}' },
    line: "GET /%22%3C%3E%60%7B%7D",
    differs: { undici: https.raw, https: https.raw }
  },
  "/[x]|y": { ask: { path: "/[x]|y" } },
  "/a\\b": { ask: { path: "/a\\b" }, line: "GET /a/b", differs: { undici: https.raw, https: https.raw } },
  "/a#b": { ask: { path: "/a#b" }, line: "GET /a", differs: { undici: https.raw, https: https.raw } },
  "/a?b#c?d": { ask: { path: "/a?b#c?d" }, line: "GET /a?b", differs: { undici: https.raw, https: https.raw } },
  "/a'b?c'd": { ask: { path: "/a'b?c'd" }, line: "GET /a'b?c%27d", differs: { undici: https.raw, https: https.raw } },
  "/a\tb\nc": { ask: { path: "/a\tb\nc" }, line: "GET /abc", differs: { undici: "refuses it", https: "refuses it" } },
  "/a\u0000b": {
    ask: { path: "/a\u0000b" },
    line: "GET /a%00b",
    differs: { undici: "refuses it", https: "refuses it" }
  },
  "/a?b=ü&c=\"'": {
    ask: { path: "/a?b=ü&c=\"'" },
    line: "GET /a?b=%C3%BC&c=%22%27",
    differs: { undici: "refuses it", https: "refuses it" }
  },
  "/\ud800": {
    ask: { path: "/\ud800" },
    line: "GET /%EF%BF%BD",
    differs: { undici: "refuses it", https: "refuses it" }
  }
}

const fields: Record<string, Row> = {
  "an ordinary one": { ask: { headers: { "x-a": "b" } } },
  "of every character a name may have": { ask: { headers: { "!#$%&'*+-.^_`|~0aA": "b" } } },
  "an empty value": { ask: { headers: { "x-a": "" } } },
  "a value of Latin-1": { ask: { headers: { "x-a": "ü" } } },
  "a value with a tab": { ask: { headers: { "x-a": "b\tc" } } },
  "called constructor": { ask: { headers: { constructor: "b" } } },
  "a value beyond Latin-1": { ask: { headers: { "x-a": "日本" } } },
  "a value with a line feed": { ask: { headers: { "x-a": "b\r\nc: d" } } },
  "a value with a NUL": { ask: { headers: { "x-a": "b\u0000c" } } },
  "a name with a space": { ask: { headers: { "x a": "b" } } },
  "a name with a colon": { ask: { headers: { "x:a": "b" } } },
  "an empty name": { ask: { headers: { "": "b" } } },
  "Transfer-Encoding": {
    ask: { headers: { "transfer-encoding": "chunked" } },
    differs: { https: https.raw }
  },
  "a length for a GET without a body": {
    ask: { headers: { "content-length": "0" } },
    differs: { https: https.raw }
  },
  "a length that is none": {
    ask: { ...post(() => "text"), headers: { "content-length": "x" } },
    differs: { https: https.raw }
  },
  "a length other than the body's": {
    ask: { ...post(() => "text"), headers: { "content-length": "3" } },
    differs: { https: https.raw }
  },
  Expect: { ask: { ...post(() => "text"), headers: { expect: "100-continue" } }, differs: { https: https.raw } },
  Upgrade: { ask: { headers: { upgrade: "websocket" } }, differs: { https: https.raw } },
  "Keep-Alive": { ask: { headers: { "keep-alive": "timeout=5" } }, differs: { https: https.raw } },
  "Connection with another name": { ask: { headers: { connection: "x-a", "x-a": "b" } } },
  Cookie: { ask: { headers: { cookie: "a=b; c=d" } } },
  Authorization: { ask: { headers: { authorization: "Bearer x" } } },
  "TE, Trailer and Via": {
    ask: { headers: { te: "trailers", trailer: "x-a", via: "1.1 x" } },
    differs: { https: "refuses a Trailer where there is no chunked body" }
  },
  large: { ask: { headers: { "x-a": "y".repeat(12_000) } } }
}

const answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

const table = (name: string, rows: Record<string, Row>) =>
  it.scoped(name, () =>
    Effect.gen(function* () {
      yield* realTime
      const bench = yield* makeBench
      const found: Record<string, unknown> = {}
      const expected: Record<string, unknown> = {}
      for (const [title, { ask, differs = {}, line }] of Object.entries(rows)) {
        const seen = new Map<Client, unknown>()
        for (const client of clients) {
          const { error, sent } = yield* bench.run(client, ask, answer)
          seen.set(client, shown(sent))
          // What is not sent is refused, as the caller's mistake.
          if (client === "ours" && sent === undefined) expect(error, title).toMatchObject({ _tag: "RequestError" })
        }
        const ours = seen.get("ours")
        for (const client of clients) {
          if (client === "ours") continue
          const isSame = JSON.stringify(seen.get(client)) === JSON.stringify(ours)
          const isExplained = differs[client] !== undefined
          const key = `${title}: ${client}`
          expected[key] = isExplained ? "differs" : ours
          found[key] = isSame ? ours : isExplained ? "differs" : seen.get(client)
        }
        if (line !== undefined) expect((ours as Sent).line, title).toBe(line)
      }
      expect(found).toEqual(expected)
    })
  )

describe("our client sends what undici, node:https and fetch send, or the difference is explained", () => {
  table("bodies", bodies)
  table("URLs", urls)
  table("header fields", fields)
})
