/** When the file that is written is full, and another one begins. */
import * as Duration from "effect/Duration"
import type { Settings } from "./auditOptions.js"
import type { Chain } from "./chain.js"

/**
 * Whether a file is full with what waits for it: it is too large, or half as old as files may become, so that retention by age
 * has files to remove; or the clock was set back, for the dates of one file do not go back.
 */
export const isFileFull = (
  { maxAge, maxFileSize }: Settings,
  file: { readonly size: number; readonly ageMillis: number },
  chain: Chain
): boolean => {
  if (chain.isEmpty) return false
  const isOld = maxAge !== undefined && file.ageMillis >= Duration.toMillis(maxAge) / 2
  return chain.isSetBack || isOld || file.size + chain.size >= maxFileSize
}
