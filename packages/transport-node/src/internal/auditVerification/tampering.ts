import type { TamperedProblem } from "./findings.js"

/** Why a record is not as it was written. `at` is its place, where that is not the line that shows it. */
export class Tampering {
  readonly problem: TamperedProblem
  readonly description: string
  readonly at: { readonly line: number; readonly seq: number; readonly file: string | undefined } | undefined
  constructor(problem: TamperedProblem, description: string, at?: Tampering["at"]) {
    this.problem = problem
    this.description = description
    this.at = at
  }
}
