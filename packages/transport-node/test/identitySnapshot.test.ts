import { assert, describe, it } from "@effect/vitest"
import { Effect, Either } from "effect"
import { readSnapshot, type Snapshot } from "../src/internal/files/snapshot.js"
import { MemoryFiles } from "./identityMemoryFiles.js"

const contentOf = (snapshot: Snapshot, path: string): string => {
  const content = snapshot.files.get(path)?.content
  if (content === undefined) return "not read"
  return Either.match(content, {
    onLeft: ({ problem, reason }) => `${reason} ${problem}`,
    onRight: ({ bytes }) => new TextDecoder().decode(bytes)
  })
}

const read = Effect.fnUntraced(function* (memory: MemoryFiles, ...paths: ReadonlyArray<string>) {
  const snapshot = yield* readSnapshot(memory.files, paths)
  return { snapshot, contents: paths.map((path) => contentOf(snapshot, path)) }
})

/** The layout of a Kubernetes volume: `/v/<name>` -> `..data/<name>`, `/v/..data` -> the current generation. */
const volume = (...names: ReadonlyArray<string>) => {
  const memory = new MemoryFiles()
  const publish = (generation: number) => {
    for (const name of names) memory.set(`/v/..${generation}/${name}`, `${name} ${generation}`)
    memory.link("/v/..data", `..${generation}`)
  }
  const remove = (generation: number) => {
    for (const name of names) memory.contents.delete(`/v/..${generation}/${name}`)
  }
  for (const name of names) memory.link(`/v/${name}`, `..data/${name}`)
  publish(1)
  return { memory, publish, remove }
}

describe("readSnapshot", () => {
  it.effect("a Kubernetes volume that is swapped between two links is read as one generation", () =>
    Effect.gen(function* () {
      const { memory, publish } = volume("crt", "key")
      let followed = 0
      memory.beforeReadLink = (path) => {
        if (path === "/v/key" && ++followed === 1) publish(2)
      }
      const { contents } = yield* read(memory, "/v/crt", "/v/key")
      assert.deepStrictEqual(contents, ["crt 1", "key 1"])
    })
  )

  it.effect("a generation that is removed in the middle of a read is followed by the next one", () =>
    Effect.gen(function* () {
      const { memory, publish, remove } = volume("crt", "key")
      memory.beforeRead = (_path, count) => {
        if (count === 2) {
          publish(2)
          remove(1)
        }
      }
      const { contents } = yield* read(memory, "/v/crt", "/v/key")
      assert.deepStrictEqual(contents, ["crt 2", "key 2"])
    })
  )

  it.effect("a generation that is gone before its first file is read is no missing file", () =>
    Effect.gen(function* () {
      const { memory, publish, remove } = volume("crt", "key")
      memory.beforeRead = (_path, count) => {
        if (count === 1) {
          publish(2)
          remove(1)
        }
      }
      const { contents } = yield* read(memory, "/v/crt", "/v/key")
      assert.deepStrictEqual(contents, ["crt 2", "key 2"])
    })
  )

  it.effect("files that are replaced one by one while being read are read as they were together", () =>
    Effect.gen(function* () {
      const memory = new MemoryFiles()
      memory.set("/d/crt", "crt 1")
      memory.set("/d/key", "key 1")
      memory.beforeRead = (_path, count) => {
        if (count !== 2) return
        memory.set("/d/crt", "crt 2")
        memory.set("/d/key", "key 2")
      }
      const { contents } = yield* read(memory, "/d/crt", "/d/key")
      assert.deepStrictEqual(contents, ["crt 2", "key 2"])
    })
  )

  it.effect("a file that never rests is a fault of that file alone, after a bounded number of reads", () =>
    Effect.gen(function* () {
      const memory = new MemoryFiles()
      memory.set("/d/crt", "crt")
      memory.set("/d/key", "0")
      memory.beforeRead = (_path, count) => memory.set("/d/key", String(count))
      const { contents } = yield* read(memory, "/d/crt", "/d/key")
      assert.deepStrictEqual(contents, ["crt", "Unavailable a file that changed whenever it was read"])
      assert.strictEqual(memory.reads, 40)
    })
  )

  it.effect("links are followed as the system follows them", () =>
    Effect.gen(function* () {
      const memory = new MemoryFiles()
      memory.set("/real/dir/file", "content")
      memory.link("/relative", "real/dir/file")
      memory.link("/absolute", "/real/dir/file")
      memory.link("/real/up", "../real/./dir/../dir//file")
      memory.link("/directory", "/real/dir")
      memory.link("/chain", "directory/file")
      memory.link("/loop", "pool")
      memory.link("/pool", "loop")
      const paths = ["/relative", "/absolute", "/real/up", "/chain", "/loop", "/real/missing"]
      const { contents, snapshot } = yield* read(memory, ...paths)
      assert.deepStrictEqual(contents, [
        "content",
        "content",
        "content",
        "content",
        "Unavailable ELOOP",
        "Unavailable ENOENT"
      ])
      const watched = Array.from(snapshot.watched, ([directory, names]) => [directory, ...Array.from(names).sort()])
      assert.deepStrictEqual(watched.sort(), [
        ["/", "absolute", "chain", "directory", "loop", "pool", "relative"],
        ["/real", "missing", "up"],
        ["/real/dir", "file"]
      ])
    })
  )

  it.effect("40 links are followed, and not one more", () =>
    Effect.gen(function* () {
      const memory = new MemoryFiles()
      memory.set("/0", "content")
      for (let link = 1; link <= 41; link++) memory.link(`/${link}`, `${link - 1}`)
      const { contents } = yield* read(memory, "/40", "/41")
      assert.deepStrictEqual(contents, ["content", "Unavailable ELOOP"])
    })
  )

  it.effect("digests are equal for equal content, and tell problems apart", () =>
    Effect.gen(function* () {
      const memory = new MemoryFiles()
      memory.set("/d/a", "one")
      const missing = yield* read(memory, "/d/a", "/d/b")
      memory.set("/d/b", "two")
      const both = yield* read(memory, "/d/a", "/d/b")
      memory.link("/other", "/d/b")
      const linked = yield* read(memory, "/d/a", "/other")
      assert.strictEqual(both.snapshot.digest, linked.snapshot.digest)
      assert.notStrictEqual(both.snapshot.digest, missing.snapshot.digest)
    })
  )
})
