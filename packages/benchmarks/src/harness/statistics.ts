export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** The lowest and the highest of the ratios. */
export const spread = (values: ReadonlyArray<number>): readonly [low: number, high: number] => [
  Math.min(...values),
  Math.max(...values)
]

export const shuffled = <A>(values: ReadonlyArray<A>): ReadonlyArray<A> => {
  const copy = [...values]
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    const [a, b] = [copy[i] as A, copy[j] as A]
    copy[i] = b
    copy[j] = a
  }
  return copy
}
