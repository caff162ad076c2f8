/** Lines of a file that is read in pieces. */

const newline = 0x0a

/** Cuts bytes into lines; what has no end yet waits for it. */
export class Lines {
  private rest: Uint8Array = new Uint8Array()

  push(piece: Uint8Array): ReadonlyArray<string> {
    const bytes = Buffer.concat([this.rest, piece])
    const end = bytes.lastIndexOf(newline)
    this.rest = bytes.subarray(end + 1)
    return end === -1 ? [] : new TextDecoder().decode(bytes.subarray(0, end)).split("\n")
  }
}
