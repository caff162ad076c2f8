/** Records that are not in the files given, and which of them the log itself accounts for. */
import type { Range, Retired } from "../audit/format.js"

export class Losses {
  /** By the headers of files. */
  readonly lost: Array<Range> = []
  /** Numbers that no record given has, between two files. */
  readonly gaps: Array<Range> = []
  /** Files that were removed because of limits, and the record that says so. */
  readonly retired: Array<Retired & { readonly at: number }> = []

  /** The records that are lost. Those that are in a file given are not lost: they were put back. */
  missing(first: number): ReadonlyArray<Range> {
    return this.lost.filter(({ from, to }) => from < first || this.gaps.some((gap) => gap.from <= to && gap.to >= from))
  }

  /**
   * Whether all records before the first one given were removed because of limits, as a signed record says. Of the files it
   * names some may still be there: they are removed one after the other.
   */
  isRetired(first: { readonly seq: number; readonly prev: string }, isSigned: (seq: number) => boolean): boolean {
    return this.retired.some(
      ({ at, hash, upTo }) => isSigned(at) && (upTo === first.seq - 1 ? hash === first.prev : upTo >= first.seq)
    )
  }
}
