import type { Duplex } from "node:stream"

/** A message of PostgreSQL's protocol: its type, its length with the length itself, its payload. */
const message = (type: string, ...parts: ReadonlyArray<Buffer>): Buffer => {
  const payload = Buffer.concat(parts)
  const head = Buffer.alloc(5)
  head.write(type)
  head.writeInt32BE(payload.length + 4, 1)
  return Buffer.concat([head, payload])
}

const int16 = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff])
const int32 = (value: number): Buffer => Buffer.concat([int16(value >> 16), int16(value & 0xffff)])
const cString = (text: string): Buffer => Buffer.from(`${text}\0`)

const ready = message("Z", Buffer.from("I"))
const authenticated = message("R", int32(0))

/** One row of one column of text, as the answer to a simple query. */
const row = (column: string, value: string): Buffer =>
  Buffer.concat([
    message("T", int16(1), cString(column), int32(0), int16(0), int32(25), int16(-1 & 0xffff), int32(-1), int16(0)),
    message("D", int16(1), int32(Buffer.byteLength(value)), Buffer.from(value)),
    message("C", cString("SELECT 1")),
    ready
  ])

/**
 * As much of a PostgreSQL server as a driver needs: whoever has the stream is let in, and each query is answered with
 * `current_user`. A message is taken to come in one piece.
 */
export const answerAsPostgres = (stream: Duplex, user: string): void => {
  stream.once("data", () => {
    stream.write(Buffer.concat([authenticated, ready]))
    stream.on("data", (bytes: Buffer) => {
      if (bytes[0] === "Q".charCodeAt(0)) stream.write(row("current_user", user))
      if (bytes[0] === "X".charCodeAt(0)) stream.end()
    })
  })
  stream.on("error", () => {})
}
