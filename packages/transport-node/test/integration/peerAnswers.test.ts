/** What our client reports of an answer, beside what undici, `node:https` and `fetch` report of it. */
import type { HttpMethod } from "@effect/platform/HttpMethod"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { realTime } from "./fixture.js"
import { type Client, clients, makeBench, type Report } from "./peerClients.js"

/** Why a client reports something else than ours does. A reason that holds no more is an error too. */
type Differences = Partial<Record<Exclude<Client, "ours">, string>>

interface Row {
  readonly answer: string
  readonly method?: HttpMethod
  /** What ours reports: status and body, or `failed` with the reason of its error. */
  readonly ours: readonly [status: number, body: string] | "Malformed" | "Lost" | "Closed"
  readonly differs?: Differences
}

const lax = {
  continues: "undici takes a 100 that nobody asked for as a fault",
  length304: "undici waits for the content that a 304 states the length of"
}
const status = (line: string, fields = "content-length: 4\r\n", body = "text") => `${line}\r\n${fields}\r\n${body}`
const ok = "HTTP/1.1 200 OK"
const whole = [200, "text"] as const
const chunked = "transfer-encoding: chunked\r\n"
const both = (reason: string): Differences => ({ undici: reason, fetch: reason })

const legal: Record<string, Row> = {
  "a length": { answer: status(ok), ours: whole },
  "a length of nothing": { answer: status(ok, "content-length: 0\r\n", ""), ours: [200, ""] },
  "a length with leading zeros": { answer: status(ok, "content-length: 0004\r\n"), ours: whole },
  "a length in spaces": { answer: status(ok, "content-length:   4  \r\n"), ours: whole },
  chunks: { answer: status(ok, chunked, "2\r\nte\r\n2\r\nxt\r\n0\r\n\r\n"), ours: whole },
  "chunks with extensions": { answer: status(ok, chunked, "4;a=b;c\r\ntext\r\n0;d\r\n\r\n"), ours: whole },
  "chunks with trailers": { answer: status(ok, chunked, "4\r\ntext\r\n0\r\nx-a: b\r\n\r\n"), ours: whole },
  "chunks with sizes in upper case and zeros": {
    answer: status(ok, chunked, "0004\r\ntext\r\n000\r\n\r\n"),
    ours: whole
  },
  "no chunk but the last": { answer: status(ok, chunked, "0\r\n\r\n"), ours: [200, ""] },
  "Chunked, in another case": {
    answer: status(ok, "Transfer-Encoding: Chunked\r\n", "4\r\ntext\r\n0\r\n\r\n"),
    ours: whole
  },
  "until the end": { answer: status(ok, ""), ours: whole },
  "until the end, of HTTP/1.0": { answer: status("HTTP/1.0 200 OK", ""), ours: whole },
  "a length, of HTTP/1.0": { answer: status("HTTP/1.0 200 OK"), ours: whole },
  "Connection: close": { answer: status(ok, "connection: close\r\ncontent-length: 4\r\n"), ours: whole },
  "no reason": { answer: status("HTTP/1.1 200 "), ours: whole },
  "no reason and no space": { answer: status("HTTP/1.1 200"), ours: whole },
  "a reason of Latin-1": { answer: status("HTTP/1.1 200 Schön"), ours: whole },
  "201": { answer: status("HTTP/1.1 201 Created"), ours: [201, "text"] },
  "204": { answer: status("HTTP/1.1 204 No Content", "", ""), ours: [204, ""] },
  "205": { answer: status("HTTP/1.1 205 Reset Content", "content-length: 0\r\n", ""), ours: [205, ""] },
  "301": { answer: status("HTTP/1.1 301 Moved", "location: /x\r\ncontent-length: 4\r\n"), ours: [301, "text"] },
  "304": { answer: status("HTTP/1.1 304 Not Modified", "", ""), ours: [304, ""] },
  "304 with a length": {
    answer: status("HTTP/1.1 304 Not Modified", "content-length: 42\r\n", ""),
    ours: [304, ""],
    differs: { undici: lax.length304 }
  },
  "404": { answer: status("HTTP/1.1 404 Not Found"), ours: [404, "text"] },
  "418": { answer: status("HTTP/1.1 418 I'm a teapot"), ours: [418, "text"] },
  "500": { answer: status("HTTP/1.1 500 Oops"), ours: [500, "text"] },
  "599": { answer: status("HTTP/1.1 599 Undefined"), ours: [599, "text"] },
  "HEAD with a length": { method: "HEAD", answer: status(ok, "content-length: 42\r\n", ""), ours: [200, ""] },
  "HEAD without a length": { method: "HEAD", answer: status(ok, "", ""), ours: [200, ""] },
  "HEAD with chunks announced": { method: "HEAD", answer: status(ok, chunked, ""), ours: [200, ""] },
  "100 before it": { answer: `HTTP/1.1 100 Continue\r\n\r\n${status(ok)}`, ours: whole, differs: both(lax.continues) },
  "102 before it": { answer: `HTTP/1.1 102 Processing\r\n\r\n${status(ok)}`, ours: whole },
  "103 before it": { answer: `HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n${status(ok)}`, ours: whole },
  "a field without a value": { answer: status(ok, "x-a:\r\ncontent-length: 4\r\n"), ours: whole },
  "a field of Latin-1": { answer: status(ok, "x-a: ü\r\ncontent-length: 4\r\n"), ours: whole },
  "two equal fields": { answer: status(ok, "x-a: b\r\nx-a: c\r\ncontent-length: 4\r\n"), ours: whole },
  "two cookies": { answer: status(ok, "set-cookie: a=b\r\nset-cookie: c=d\r\ncontent-length: 4\r\n"), ours: whole },
  "an empty line before it": { answer: `\r\n${status(ok)}`, ours: whole }
}

const hostile: Record<string, Row> = {
  "no answer at all": { answer: "", ours: "Closed" },
  "no HTTP": { answer: "hello?\r\n\r\n", ours: "Malformed" },
  "a request": { answer: "GET / HTTP/1.1\r\nhost: x\r\n\r\n", ours: "Malformed" },
  "HTTP/2's preface": { answer: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ours: "Malformed" },
  "HTTP/0.9": { answer: "<html>text</html>", ours: "Malformed" },
  "HTTP/3.7": { answer: status("HTTP/3.7 200 OK"), ours: "Malformed" },
  "a status of two digits": { answer: status("HTTP/1.1 20 OK"), ours: "Malformed" },
  "a status of four digits": { answer: status("HTTP/1.1 2000 OK"), ours: "Malformed" },
  "a status of letters": { answer: status("HTTP/1.1 OK OK"), ours: "Malformed" },
  "a negative status": { answer: status("HTTP/1.1 -20 OK"), ours: "Malformed" },
  "101 that nobody asked for": {
    answer: "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ours: "Malformed"
  },
  "two lengths": { answer: status(ok, "content-length: 4\r\ncontent-length: 5\r\n"), ours: "Malformed" },
  "one length twice": { answer: status(ok, "content-length: 4\r\ncontent-length: 4\r\n"), ours: "Malformed" },
  "a list of lengths": { answer: status(ok, "content-length: 4, 4\r\n"), ours: "Malformed" },
  "a negative length": { answer: status(ok, "content-length: -4\r\n"), ours: "Malformed" },
  "a length with a sign": { answer: status(ok, "content-length: +4\r\n"), ours: "Malformed" },
  "a length in hexadecimal": { answer: status(ok, "content-length: 0x4\r\n"), ours: "Malformed" },
  "an empty length": { answer: status(ok, "content-length:\r\n"), ours: "Malformed" },
  "a length beyond 64 bits": { answer: status(ok, `content-length: ${"9".repeat(30)}\r\n`), ours: "Malformed" },
  "a length and chunks": {
    answer: status(ok, `content-length: 4\r\n${chunked}`, "4\r\ntext\r\n0\r\n\r\n"),
    ours: "Malformed"
  },
  "chunks and a length": {
    answer: status(ok, `${chunked}content-length: 4\r\n`, "4\r\ntext\r\n0\r\n\r\n"),
    ours: "Malformed"
  },
  "a chunk size that is none": { answer: status(ok, chunked, "x\r\ntext\r\n0\r\n\r\n"), ours: "Malformed" },
  "a chunk size with a sign": { answer: status(ok, chunked, "+4\r\ntext\r\n0\r\n\r\n"), ours: "Malformed" },
  "a chunk size with 0x": { answer: status(ok, chunked, "0x4\r\ntext\r\n0\r\n\r\n"), ours: "Malformed" },
  "a chunk size beyond 64 bits": { answer: status(ok, chunked, `${"f".repeat(20)}\r\ntext`), ours: "Malformed" },
  "a chunk longer than its size": { answer: status(ok, chunked, "2\r\ntext\r\n0\r\n\r\n"), ours: "Malformed" },
  "a chunk ended by a line feed": { answer: status(ok, chunked, "4\ntext\n0\n\n"), ours: "Malformed" },
  "lines ended by line feeds": { answer: `${ok}\ncontent-length: 4\n\ntext`, ours: "Malformed" },
  "lines ended by carriage returns": { answer: `${ok}\rcontent-length: 4\r\rtext`, ours: "Malformed" },
  "a folded field": { answer: status(ok, "x-a: b\r\n c\r\ncontent-length: 4\r\n"), ours: "Malformed" },
  "a field without a colon": { answer: status(ok, "x-a\r\ncontent-length: 4\r\n"), ours: "Malformed" },
  "a field without a name": { answer: status(ok, ": b\r\ncontent-length: 4\r\n"), ours: "Malformed" },
  "a space before the colon": { answer: status(ok, "content-length : 4\r\n"), ours: "Malformed" },
  "a space before the first field": { answer: status(ok, " x-a: b\r\ncontent-length: 4\r\n"), ours: "Malformed" },
  "a NUL in a field": { answer: status(ok, "x-a: b\u0000c\r\ncontent-length: 4\r\n"), ours: "Malformed" },
  "a carriage return in a field": { answer: status(ok, "x-a: b\rc\r\ncontent-length: 4\r\n"), ours: "Malformed" },
  "a head without end": { answer: `${ok}\r\nx-a: ${"b".repeat(20_000)}`, ours: "Malformed" },
  "a head that breaks off": { answer: `${ok}\r\nx-a: b`, ours: "Lost" },
  "a status line that breaks off": { answer: "HTTP/1.1 2", ours: "Lost" },
  "a body that breaks off": { answer: status(ok, "content-length: 42\r\n"), ours: "Lost" },
  "chunks that break off": { answer: status(ok, chunked, "4\r\nte"), ours: "Lost" },
  "chunks without the last": { answer: status(ok, chunked, "4\r\ntext\r\n"), ours: "Lost" },
  "an unknown transfer coding": { answer: status(ok, "transfer-encoding: x\r\n"), ours: whole },
  "chunked that is not last": { answer: status(ok, "transfer-encoding: chunked, x\r\n"), ours: whole }
}

const outcome = (report: Report): unknown => (report === "failed" ? "failed" : [report.status, report.body])

const table = (name: string, rows: Record<string, Row>) =>
  it.scoped(name, () =>
    Effect.gen(function* () {
      yield* realTime
      const bench = yield* makeBench
      const found: Record<string, unknown> = {}
      const expected: Record<string, unknown> = {}
      for (const [title, { answer, differs = {}, method, ours }] of Object.entries(rows)) {
        const ask = { method: method ?? "GET", path: "/" } as const
        const { error, report } = yield* bench.run("ours", ask, answer)
        expected[title] = ours
        found[title] = report === "failed" ? reasonOf(error) : outcome(report)
        for (const client of clients) {
          if (client === "ours") continue
          const theirs = outcome((yield* bench.run(client, ask, answer)).report)
          const isSame = JSON.stringify(theirs) === JSON.stringify(outcome(report))
          const key = `${title}: ${client}`
          expected[key] = differs[client] === undefined ? "as ours" : "differs"
          found[key] = isSame ? "as ours" : differs[client] === undefined ? theirs : "differs"
        }
      }
      expect(found).toEqual(expected)
    })
  )

/** The reason of a `ConnectionError`, also inside the error of the body's reader. */
const reasonOf = (error: unknown): unknown => {
  const { _tag, cause, reason } = error as {
    readonly _tag?: string
    readonly cause?: unknown
    readonly reason?: unknown
  }
  return _tag === "ConnectionError" ? reason : cause === undefined ? error : reasonOf(cause)
}

describe("our client reports what undici, node:https and fetch report, or the difference is explained", () => {
  table("legal answers", legal)
  table("broken and hostile answers", hostile)
})
