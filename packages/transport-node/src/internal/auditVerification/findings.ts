/** The findings of a verification: each keeps a file from being `Verified`. */

/** The problem of the first record that is not as it was written. */
export type TamperedProblem = "Unreadable" | "Changed" | "Missing" | "OutOfPlace" | "BadSignature"

/** One thing that keeps a file from being `Verified`. */
export type Finding =
  | {
      readonly _tag: "Tampered"
      /** Name of the file as it was given; `undefined` for a bare text. */
      readonly file: string | undefined
      /** From 1. */
      readonly line: number
      /** Number that the record has, or should have. */
      readonly seq: number
      readonly problem: TamperedProblem
      readonly description: string
    }
  | {
      readonly _tag: "SignerUnknown"
      /** Number of the first checkpoint by this signer. */
      readonly seq: number
      readonly description: string
    }
  | { readonly _tag: "Unsigned"; readonly from: number; readonly to: number; readonly description: string }
  | {
      readonly _tag: "Incomplete"
      readonly what: "BeginsInTheMiddle" | "BeginsAnew" | "PredecessorMissing" | "TailOpen" | "Lost" | "Dropped"
      /** Numbers of the missing records, where they are known. */
      readonly from?: number
      readonly to?: number
      readonly description: string
    }

/** A workload that signed checkpoints. */
export interface Signer {
  readonly ownId: string
  /** DER of the certificates, the leaf first. */
  readonly certificates: readonly [Uint8Array, ...ReadonlyArray<Uint8Array>]
  /** Date of the last checkpoint signed with it, milliseconds since the epoch. */
  readonly time: number
}

/** The kinds of findings, the gravest first. */
export const gravity: ReadonlyArray<Finding["_tag"]> = ["Tampered", "SignerUnknown", "Unsigned", "Incomplete"]
