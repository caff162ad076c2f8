/** Compares files with what an anchor kept of them. */
import type { Anchored } from "../../AuditAnchor.js"
import type { Finding } from "./findings.js"

export class Kept {
  /** Checkpoints by log and number. */
  private readonly checkpoints = new Map<string, Map<number, string>>()
  /** The last record of each log that was read. */
  private readonly ends = new Map<string, number>()

  constructor(anchored: Iterable<Anchored>) {
    for (const { checkpoint, log, seq } of anchored) {
      const ofLog = this.checkpoints.get(log) ?? new Map<number, string>()
      this.checkpoints.set(log, ofLog.set(seq, checkpoint))
    }
  }

  /** Whether the anchor keeps another line of this number. */
  differs(log: string, seq: number, line: string): boolean {
    this.ends.set(log, seq)
    const checkpoint = this.checkpoints.get(log)?.get(seq)
    return checkpoint !== undefined && checkpoint !== line
  }

  /** Findings for checkpoints that the anchor keeps and the files do not hold. `file` and `line` are where they end. */
  findings(file: string | undefined, line: number): ReadonlyArray<Finding> {
    return Array.from(this.checkpoints).flatMap(([log, checkpoints]): ReadonlyArray<Finding> => {
      const last = Math.max(...checkpoints.keys())
      const end = this.ends.get(log)
      if (end === undefined) {
        const description = `the anchor keeps checkpoints of another log, up to record ${last}, whose files were not given`
        return [{ _tag: "Incomplete", what: "PredecessorMissing", description }]
      }
      if (end >= last) return []
      const description = `the anchor keeps a checkpoint at record ${last}: records ${end + 1} to ${last} were cut off`
      return [{ _tag: "Tampered", file, line, seq: end + 1, problem: "Missing", description }]
    })
  }
}
