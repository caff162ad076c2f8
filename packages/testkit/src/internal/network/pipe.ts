type Done = (cause?: unknown) => void

interface Reader {
  readonly onData: (chunk: Uint8Array) => void
  readonly onEnd: () => void
}

/** How many bytes may be on their way before a write waits for the reader. */
const mostWaiting = 64 * 1024

const toBytes = (chunk: Uint8Array | string): Uint8Array =>
  typeof chunk === "string" ? new TextEncoder().encode(chunk) : Uint8Array.from(chunk)

/** The bytes of one direction of a connection, in order. Bytes that nobody reads yet are kept. */
export class Pipe {
  isEnded = false
  /** Its reader has had the last byte. */
  isRead = false
  private isBroken = false
  private isPaused = false
  private isFlushing = false
  private reader: Reader | undefined = undefined
  private readonly waiting: Array<Uint8Array> = []
  private waitingBytes = 0
  private writers: Array<Done> = []
  private readonly onBytes: (count: number) => void
  private readonly onRead: () => void

  /** `onBytes` is told of bytes that were written, `onRead` of the end of the reading. */
  constructor(onBytes: (count: number) => void, onRead: () => void) {
    this.onBytes = onBytes
    this.onRead = onRead
  }

  read(reader: Reader): () => void {
    this.reader = reader
    this.isPaused = false
    this.flush()
    return () => {
      if (this.reader === reader) this.reader = undefined
    }
  }

  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
    this.flush()
  }

  write(chunk: Uint8Array | string, done: Done): void {
    if (this.isEnded || this.isBroken) {
      done(new Error("expected a stream that is open, it has ended"))
      return
    }
    const bytes = toBytes(chunk)
    this.onBytes(bytes.length)
    this.waiting.push(bytes)
    this.waitingBytes += bytes.length
    this.writers.push(done)
    this.flush()
  }

  end(done: Done): void {
    this.isEnded = true
    this.flush()
    done()
  }

  /** The connection is gone: what was not read is lost, unless the last byte was written. */
  breakOff(): void {
    if (this.isEnded || this.isBroken) return
    this.isBroken = true
    this.reader = undefined
    this.waiting.length = 0
    this.release(new Error("expected the connection to last until the bytes are read, it is gone"))
  }

  /** Gives the reader what there is. A reader that writes is not asked to read in between. */
  private flush(): void {
    if (this.isFlushing) return
    this.isFlushing = true
    while (this.reader !== undefined && !this.isPaused) {
      const chunk = this.waiting.shift()
      if (chunk === undefined) break
      this.waitingBytes -= chunk.length
      this.reader.onData(chunk)
    }
    this.isFlushing = false
    if (this.waitingBytes <= mostWaiting) this.release()
    if (!this.isEnded || this.isRead || this.isPaused || this.waiting.length > 0 || this.reader === undefined) return
    this.isRead = true
    this.reader.onEnd()
    this.onRead()
  }

  private release(cause?: unknown): void {
    const { writers } = this
    this.writers = []
    for (const done of writers) done(cause)
  }
}
