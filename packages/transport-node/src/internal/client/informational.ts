import type { TLSSocket } from "node:tls"

/** A longer informational response is left to undici, which refuses it. */
const longestHead = 16 * 1024

const start = Buffer.from("HTTP/1.1 1", "latin1")
const headEnd = "\r\n\r\n"

/** A status line of 1xx and field lines (RFC 9112 sections 4 and 5), each with its line end. 101 is an answer to an upgrade. */
const informational =
  /^HTTP\/1\.1 1(?!01)\d\d(?: [\t\x20-\x7e\x80-\xff]*)?\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*$/

/** Where the informational response at the beginning of the bytes ends; 0 if it has not ended yet, -1 if there is none. */
const informationalEnd = (bytes: Buffer): number => {
  if (bytes.length < start.length) return bytes.equals(start.subarray(0, bytes.length)) ? 0 : -1
  if (bytes.compare(start, 0, start.length, 0, start.length) !== 0) return -1
  const end = bytes.indexOf(headEnd, start.length, "latin1")
  if (end < 0) return bytes.length < longestHead ? 0 : -1
  return end < longestHead && informational.test(bytes.toString("latin1", 0, end + 2)) ? end + headEnd.length : -1
}

/**
 * Takes informational responses out of what is read from the socket: a client that has not asked for one ignores it (RFC
 * 9110 section 15.2), and undici (7.30) ends the connection on a `100 Continue`. Only what comes between a request and its
 * final response is looked at. The returned function is to be called when a request is about to be written.
 */
export const withoutInformational = (socket: TLSSocket): (() => void) => {
  const read = socket.read
  let isAwaiting = false
  let held: Buffer | undefined
  const final = (next: Buffer): Buffer | undefined => {
    let bytes = held === undefined ? next : Buffer.concat([held, next])
    held = undefined
    for (let end = informationalEnd(bytes); end !== -1; end = informationalEnd(bytes)) {
      if (end === 0) {
        if (bytes.length > 0) held = bytes
        return undefined
      }
      bytes = bytes.subarray(end)
    }
    isAwaiting = false
    return bytes
  }
  socket.read = (size) => {
    let chunk: Buffer | null = read.call(socket, size)
    while (isAwaiting && chunk !== null) {
      const bytes = final(chunk)
      if (bytes !== undefined) return bytes
      chunk = read.call(socket, size)
    }
    return chunk
  }
  return () => {
    isAwaiting = true
    held = undefined
  }
}
