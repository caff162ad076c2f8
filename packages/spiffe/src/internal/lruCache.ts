/** The newest entries by use, at most `size` of them. */
export interface LruCache<A> {
  readonly get: (key: string) => A | undefined
  readonly set: (key: string, value: A) => void
}

/** A bounded cache that forgets what was not used for longest. A size below one keeps nothing. */
export const make = <A>(size: number): LruCache<A> => {
  // A Map iterates in the order of insertion: the first key is the one used longest ago.
  const entries = new Map<string, A>()
  return {
    get: (key) => {
      const value = entries.get(key)
      if (value !== undefined) {
        entries.delete(key)
        entries.set(key, value)
      }
      return value
    },
    set: (key, value) => {
      entries.delete(key)
      entries.set(key, value)
      for (const oldest of entries.keys()) {
        if (entries.size <= size) break
        entries.delete(oldest)
      }
    }
  }
}
