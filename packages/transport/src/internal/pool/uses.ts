import type { PoolSlot } from "./link.js"

/** So many different uses of connections are named in an error. */
const shown = 5

/** Without the query, which may hold secrets. */
const useOf = ({ link }: PoolSlot): string => {
  if (link === undefined) return "being opened"
  const request = link.inUseBy
  return request === undefined ? "leased" : `by ${request.method} ${request.url.split(/[?#]/, 1).join()}`
}

/** What the connections of slots are in use by, the most frequent use first. */
export const describeUses = (slots: Iterable<PoolSlot>): string => {
  const counts = new Map<string, number>()
  for (const slot of slots) {
    const use = useOf(slot)
    counts.set(use, (counts.get(use) ?? 0) + 1)
  }
  const uses = Array.from(counts).sort(([, a], [, b]) => b - a)
  const others = uses.slice(shown).reduce((sum, [, count]) => sum + count, 0)
  const named = uses.slice(0, shown).map(([use, count]) => `${count} ${use}`)
  return (others === 0 ? named : [...named, `${others} by other requests`]).join(", ")
}
