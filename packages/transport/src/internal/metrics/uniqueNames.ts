/** Names in an alphabet smaller than the one they come from, so that no two of them become one. */
import * as Hash from "effect/Hash"

/** A thing that wants a name. */
export interface Wish<A> {
  readonly of: A
  /** Its name as it is, with all that tells it from others. */
  readonly name: string
  /** Its name in the smaller alphabet. */
  readonly safe: string
  /** All names that it takes when it is called so. */
  readonly takes: (name: string) => ReadonlyArray<string>
}

const suffixOf = (name: string): string => (Hash.string(name) >>> 0).toString(16).padStart(8, "0")

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/**
 * Gives each its safe name. Where others want it too, it goes to the one whose name it is already, or to the first in
 * alphabetical order; the others get a suffix made of their own name, so that it does not depend on which others there are.
 */
export const uniqueNames = <A>(
  wishes: ReadonlyArray<Wish<A>>,
  reserved: ReadonlyArray<string> = []
): Map<A, string> => {
  const taken = new Set(reserved)
  const isFree = ({ takes }: Wish<A>, name: string) => takes(name).every((one) => !taken.has(one))
  const rank = ({ name, safe }: Wish<A>) => (name === safe ? 0 : 1)
  const names = new Map<A, string>()
  for (const wish of wishes.toSorted((a, b) => rank(a) - rank(b) || compare(a.name, b.name))) {
    let name = isFree(wish, wish.safe) ? wish.safe : `${wish.safe}_${suffixOf(wish.name)}`
    while (!isFree(wish, name)) name += "_"
    for (const one of wish.takes(name)) taken.add(one)
    names.set(wish.of, name)
  }
  return names
}
