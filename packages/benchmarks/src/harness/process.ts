import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { Calls, Reply, Request } from "./worker.js"

const entry = fileURLToPath(new URL("./worker.js", import.meta.url))

/** Longer than any call should take: a worker that hangs fails its row, and not the run. */
const answerTimeout = 120_000

/** A worker process, as its parent sees it. */
export class Worker {
  private readonly child: ChildProcess
  private readonly waiting = new Map<number, (reply: Reply) => void>()
  private nextId = 0

  constructor() {
    // Node's own flags are inherited: a profile of the parent's would be one of every worker's.
    this.child = fork(entry, { stdio: ["ignore", "inherit", "inherit", "ipc"] })
    this.child.on("message", (message) => {
      const reply = message as Reply
      const settle = this.waiting.get(reply.id)
      this.waiting.delete(reply.id)
      settle?.(reply)
    })
    this.child.once("exit", (code, signal) => {
      for (const [id, settle] of this.waiting) settle({ id, error: `the worker ended (${signal ?? code})` })
      this.waiting.clear()
    })
  }

  call<K extends keyof Calls>(call: K, ...args: Parameters<Calls[K]>): ReturnType<Calls[K]> {
    const id = this.nextId++
    const request: Request = { id, call, args }
    const answer = new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`no answer to "${call}" in ${answerTimeout / 1000} s`)),
        answerTimeout
      )
      this.waiting.set(id, (reply) => {
        clearTimeout(timer)
        if ("error" in reply) reject(new Error(reply.error))
        else resolve(reply.value)
      })
      if (!this.child.connected) reject(new Error("the worker has ended"))
      else this.child.send(request)
    })
    return answer as ReturnType<Calls[K]>
  }

  /** Resolves when the process is gone; rejects when it went on its own account. */
  end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) {
      return Promise.reject(new Error(`a worker ended early (${this.child.signalCode ?? this.child.exitCode})`))
    }
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.child.kill("SIGKILL"), 5_000)
      this.child.once("exit", () => {
        clearTimeout(timer)
        resolve()
      })
      if (this.child.connected) this.child.disconnect()
    })
  }
}
