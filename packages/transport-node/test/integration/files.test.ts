import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { IdentityProvider, X509Bundle, type X509Context, X509Svid } from "@agentweave/spiffe"
import { DevAuthority } from "@agentweave/testkit"
import { type IdentityFileEvent, NodeIdentity } from "@agentweave/transport-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Config,
  ConfigProvider,
  Context,
  Effect,
  Either,
  Exit,
  Layer,
  Logger,
  Option,
  Redacted,
  type Scope,
  Stream
} from "effect"

interface Generation {
  readonly svid: X509Svid.X509Svid
  readonly bundle: X509Bundle.X509Bundle
  /** By file name. */
  readonly files: Readonly<Record<string, string>>
}

const names = ["svid.pem", "svid_key.pem", "bundle.pem"] as const

/** SVIDs that all verify under the bundle of each, and that no two of which share a key or a bundle. */
const generations = Effect.runSync(
  Effect.cached(
    Effect.gen(function* () {
      const authority = yield* DevAuthority.make({ trustDomain: "example.org", intermediates: 1 })
      return yield* Effect.forEach([0, 1, 2, 3, 4, 5, 6], () =>
        Effect.gen(function* (): Effect.fn.Return<Generation, unknown> {
          const extra = yield* DevAuthority.make({ trustDomain: "example.org" })
          const svid = yield* authority.issue({ path: "/api" })
          const { bundle } = yield* authority.addRoot(extra.roots[0])
          return {
            svid,
            bundle,
            files: {
              "svid.pem": X509Svid.certificatesPem(svid),
              "svid_key.pem": Redacted.value(X509Svid.privateKeyPem(svid)),
              "bundle.pem": X509Bundle.toPem(bundle)
            }
          }
        })
      )
    })
  )
)

/** In memory where there is such a place: thousands of writes must not wait for a disk. */
const base = fs.existsSync("/dev/shm") ? "/dev/shm" : tmpdir()

const directory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(base, "identity-files-"))),
  (path) => Effect.sync(() => fs.rmSync(path, { recursive: true, force: true }))
)

const filesIn = (path: string): NodeIdentity.Files => ({
  certificate: join(path, "svid.pem"),
  key: join(path, "svid_key.pem"),
  bundle: join(path, "bundle.pem")
})

/** A way of putting a generation's files in place, one step at a time; each step is one call of the file system or two. */
type Publisher = (path: string) => (generation: Generation) => ReadonlyArray<() => void>

const inPlace: Publisher = (path) => (generation) =>
  names.map((name) => () => fs.writeFileSync(join(path, name), generation.files[name] ?? "", { mode: 0o600 }))

const atomicRename: Publisher = (path) => (generation) =>
  names.map((name) => () => {
    fs.writeFileSync(join(path, `.${name}`), generation.files[name] ?? "", { mode: 0o600 })
    fs.renameSync(join(path, `.${name}`), join(path, name))
  })

/** What the kubelet does: a new directory, a link to it put in place of the old one, the old directory removed. */
const kubernetes: Publisher = (path) => {
  let counter = 0
  return (generation) => {
    const before = `..${counter}`
    const next = `..${++counter}`
    return [
      () => {
        fs.mkdirSync(join(path, next))
        for (const name of names) fs.writeFileSync(join(path, next, name), generation.files[name] ?? "")
        fs.symlinkSync(next, join(path, "..data_tmp"))
      },
      () => {
        fs.renameSync(join(path, "..data_tmp"), join(path, "..data"))
        if (counter === 1) for (const name of names) fs.symlinkSync(join("..data", name), join(path, name))
        fs.rmSync(join(path, before), { recursive: true, force: true })
      }
    ]
  }
}

/** As {@link kubernetes}, between directories written beforehand: nothing but the swap itself. */
const linkSwap: Publisher = (path) => (generation) => {
  const target = `..${generation.svid.fingerprint}`
  return [
    () => {
      if (!fs.existsSync(join(path, target))) {
        fs.mkdirSync(join(path, target))
        for (const name of names) fs.writeFileSync(join(path, target, name), generation.files[name] ?? "")
      }
      fs.symlinkSync(target, join(path, "..data_tmp"))
      fs.renameSync(join(path, "..data_tmp"), join(path, "..data"))
      if (!fs.existsSync(join(path, "svid.pem"))) {
        for (const name of names) fs.symlinkSync(join("..data", name), join(path, name))
      }
    }
  ]
}

const publishers = { inPlace, atomicRename, kubernetes, linkSwap }

/** A test in real time, without the log. */
const quiet = <A, E>(name: string, test: () => Effect.Effect<A, E, Scope.Scope>) =>
  it.scopedLive(name, () => Effect.provide(test(), Logger.remove(Logger.defaultLogger)))

const turn = Effect.async<void>((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})

/** The identity once it is this generation's. */
const until = (
  provider: { readonly changes: Stream.Stream<X509Context.X509Context, unknown> },
  { bundle, svid }: Generation
) =>
  provider.changes.pipe(
    Stream.filter(
      (context) =>
        context.svid.fingerprint === svid.fingerprint &&
        context.bundles.bundles.get(bundle.trustDomain)?.generation === bundle.generation
    ),
    Stream.runHead,
    Effect.timeout("10 seconds")
  )

/** A provider that only its watchers wake, and what it reports. */
const provide = Effect.fnUntraced(function* (path: string) {
  const events: Array<IdentityFileEvent.IdentityFileEvent> = []
  const context = yield* Layer.build(
    NodeIdentity.layerFiles({
      ...filesIn(path),
      debounce: "5 millis",
      pollInterval: "1 hour",
      onEvent: (event) => Effect.sync(() => events.push(event))
    })
  )
  return { provider: yield* Effect.provide(IdentityProvider.IdentityProvider, context), events }
})

const run = (steps: ReadonlyArray<() => void>): void => {
  for (const step of steps) step()
}

describe("10,000 file swaps against a reader: no mixed pair, none lost", () => {
  const swaps = { linkSwap: 5_000, atomicRename: 2_000, inPlace: 2_000, kubernetes: 1_000 }

  for (const mode of ["linkSwap", "atomicRename", "inPlace", "kubernetes"] as const) {
    quiet(`${swaps[mode]} by ${mode}`, () =>
      Effect.gen(function* () {
        const all = yield* generations
        const indexOf = new Map(all.map(({ svid }, index) => [svid.fingerprint, index]))
        const at = (count: number): Generation => all[count % all.length] ?? assert.fail()
        const path = yield* directory
        const publish = publishers[mode](path)
        const read = Effect.either(NodeIdentity.readFiles(filesIn(path)))
        run(publish(at(0)))
        let completed = 0
        let good = 0
        const refused = new Set<string>()

        /** A reader that never rests. An SVID is a pair that belongs together: there is none of a mixed pair. */
        const reader = Effect.gen(function* () {
          const before = completed
          const result = yield* read
          if (Either.isLeft(result)) {
            refused.add(result.left.message.split(":", 1).join())
            return
          }
          const { bundles, svid } = result.right
          const index = indexOf.get(svid.fingerprint) ?? assert.fail("an SVID that was never written")
          // Nothing older than what stood when the read began.
          const possible = Math.min(completed + 1 - before, all.length - 1)
          assert.isAtMost((index - (before % all.length) + all.length) % all.length, possible)
          if (mode === "linkSwap" || mode === "kubernetes") {
            const { bundle } = at(index)
            const seen = bundles.bundles.get(bundle.trustDomain)?.generation
            assert.strictEqual(seen, bundle.generation, "SVID and bundle of one generation")
          }
          good++
        })

        const writer = Effect.gen(function* () {
          while (completed < swaps[mode]) {
            for (const step of publish(at(completed + 1))) {
              step()
              // Now and then the reader gets to see what is between two steps.
              if (completed % 8 === 0) yield* turn
            }
            completed++
            if (completed % 200 === 0) {
              const count = good
              while (good === count) yield* turn
              const rested = yield* Effect.flatten(read)
              assert.strictEqual(rested.svid.fingerprint, at(completed).svid.fingerprint, "the last swap is not lost")
            }
          }
        })
        yield* Effect.raceFirst(writer, Effect.forever(reader))
        assert.isTrue(Array.from(refused).every((reason) => reason === "Malformed" || reason === "Unavailable"))
        if (mode === "linkSwap") assert.deepStrictEqual(Array.from(refused), [])
        assert.isAtLeast(good, swaps[mode] / 200)
      })
    )
  }
})

describe("layerFiles on a real file system", () => {
  for (const mode of ["inPlace", "atomicRename", "kubernetes", "linkSwap"] as const) {
    quiet(`every rotation by ${mode} is noticed by the watcher`, () =>
      Effect.gen(function* () {
        const all = yield* generations
        const path = yield* directory
        const publish = publishers[mode](path)
        const [first, ...others] = all
        if (first === undefined) return assert.fail()
        run(publish(first))
        const { events, provider } = yield* provide(path)
        yield* until(provider, first)
        for (const generation of [...others, first]) {
          run(publish(generation))
          yield* until(provider, generation)
        }
        assert.isTrue(events.every(({ _tag }) => _tag === "IdentityLoaded" || _tag === "KeyExposed"))
      })
    )
  }

  quiet("a half-written pair keeps the last good one until it is whole", () =>
    Effect.gen(function* () {
      const [first, second] = yield* generations
      if (first === undefined || second === undefined) return assert.fail()
      const path = yield* directory
      run(inPlace(path)(first))
      const rejected = yield* Effect.makeLatch()
      const context = yield* Layer.build(
        NodeIdentity.layerFiles({
          ...filesIn(path),
          debounce: "5 millis",
          pollInterval: "1 hour",
          onEvent: ({ _tag }) => (_tag === "IdentityRejected" ? rejected.open : Effect.void)
        })
      )
      const provider = yield* Effect.provide(IdentityProvider.IdentityProvider, context)
      const pem = second.files["svid.pem"] ?? ""
      fs.writeFileSync(join(path, "svid.pem"), pem.slice(0, 400))
      yield* Effect.timeout(rejected.await, "10 seconds")
      assert.strictEqual((yield* provider.x509Context).svid.fingerprint, first.svid.fingerprint)
      run(inPlace(path)(second))
      yield* until(provider, second)
    })
  )

  quiet("files that are removed and come back", () =>
    Effect.gen(function* () {
      const [first, second] = yield* generations
      if (first === undefined || second === undefined) return assert.fail()
      const path = join(yield* directory, "in", "here")
      fs.mkdirSync(path, { recursive: true })
      run(inPlace(path)(first))
      const { provider } = yield* provide(path)
      fs.rmSync(path, { recursive: true })
      assert.strictEqual((yield* provider.x509Context).svid.fingerprint, first.svid.fingerprint)
      fs.mkdirSync(path)
      run(inPlace(path)(second))
      yield* until(provider, second)
    })
  )

  quiet("an entire directory moved into the place of another", () =>
    Effect.gen(function* () {
      const [first, second, third] = yield* generations
      if (first === undefined || second === undefined || third === undefined) return assert.fail()
      const parent = yield* directory
      for (const [name, generation] of [
        ["now", first],
        ["next", second]
      ] as const) {
        fs.mkdirSync(join(parent, name))
        run(inPlace(join(parent, name))(generation))
      }
      const { provider } = yield* provide(join(parent, "now"))
      fs.renameSync(join(parent, "now"), join(parent, "old"))
      fs.renameSync(join(parent, "next"), join(parent, "now"))
      yield* until(provider, second)
      run(inPlace(join(parent, "now"))(third))
      yield* until(provider, third)
    })
  )

  quiet("what is not a file of credentials is refused at once, with its path", () =>
    Effect.gen(function* () {
      const [first] = yield* generations
      if (first === undefined) return assert.fail()
      const path = yield* directory
      run(inPlace(path)(first))
      const files = filesIn(path)
      const large = join(path, "large.pem")
      fs.writeFileSync(large, Buffer.alloc(1024 * 1024 + 1, 0x20))
      const pipe = join(path, "pipe")
      execFileSync("mkfifo", [pipe])
      const cases: ReadonlyArray<readonly [Partial<NodeIdentity.Files>, RegExp]> = [
        [{ certificate: path }, /Malformed: certificate .*regular file/],
        [{ key: pipe }, /Malformed: key .*pipe.*regular file/],
        [{ bundle: large }, /Malformed: bundle .*large.pem.*more than 1048576 bytes/],
        [{ key: join(path, "svid.pem", "x") }, /Unavailable: key .*ENOTDIR/],
        [{ bundle: join(path, "none", "x") }, /Unavailable: bundle .*ENOENT/],
        [{ federatedBundles: { "Partner.example": path } }, /NodeIdentity.federatedBundles: /],
        [{ trustDomain: "spiffe://example.org" }, /NodeIdentity.trustDomain: /]
      ]
      for (const [change, expected] of cases) {
        const one = yield* Effect.flip(NodeIdentity.readFiles({ ...files, ...change }))
        assert.match(one.message, expected)
        const exit = yield* Effect.exit(Layer.build(NodeIdentity.layerFiles({ ...files, ...change })))
        assert.isTrue(Exit.isFailure(exit))
        if (Exit.isFailure(exit)) assert.include(String(exit.cause), one.message)
      }
      for (const change of [{ pollInterval: 0 }, { pollInterval: "Infinity" as never }, { debounce: Infinity }]) {
        const exit = yield* Effect.exit(Layer.build(NodeIdentity.layerFiles({ ...files, ...change })))
        assert.isTrue(Exit.isFailure(exit), JSON.stringify(change))
      }
    })
  )

  quiet("a key file that everybody can read is warned about, a private one is not", () =>
    Effect.gen(function* () {
      const [first] = yield* generations
      if (first === undefined) return assert.fail()
      const path = yield* directory
      run(inPlace(path)(first))
      const exposures = Effect.map(Effect.scoped(provide(path)), ({ events }) =>
        events.filter(({ _tag }) => _tag === "KeyExposed")
      )
      fs.chmodSync(join(path, "svid_key.pem"), 0o640)
      assert.deepStrictEqual(yield* exposures, [])
      fs.chmodSync(join(path, "svid_key.pem"), 0o644)
      assert.deepStrictEqual(yield* exposures, [{ _tag: "KeyExposed", path: join(path, "svid_key.pem") }])
    })
  )

  quiet("paths and intervals from Config", () =>
    Effect.gen(function* () {
      const [first] = yield* generations
      if (first === undefined) return assert.fail()
      const path = yield* directory
      run(inPlace(path)(first))
      const layer = NodeIdentity.layerFilesConfig({
        certificate: Config.string("CERTIFICATE"),
        key: Config.string("KEY"),
        bundle: Config.string("BUNDLE"),
        pollInterval: Config.duration("POLL")
      })
      const build = (poll: string) =>
        Effect.flatMap(
          Effect.withConfigProvider(
            Layer.build(layer),
            ConfigProvider.fromMap(
              new Map([
                ["CERTIFICATE", filesIn(path).certificate],
                ["KEY", filesIn(path).key],
                ["BUNDLE", filesIn(path).bundle],
                ["POLL", poll]
              ])
            )
          ),
          (services) => Context.get(services, IdentityProvider.IdentityProvider).x509Context
        )
      assert.strictEqual((yield* build("1 minute")).svid.fingerprint, first.svid.fingerprint)
      assert.strictEqual((yield* Effect.flip(build("0 millis")))._tag, "InvalidConfigError")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(build("soon"))))
    })
  )

  quiet("relative paths, and a link to a directory elsewhere", () =>
    Effect.gen(function* () {
      const [first, second] = yield* generations
      if (first === undefined || second === undefined) return assert.fail()
      const parent = yield* directory
      fs.mkdirSync(join(parent, "real"))
      run(inPlace(join(parent, "real"))(first))
      fs.symlinkSync(join(parent, "real"), join(parent, "link"))
      const relative = join(
        ...process
          .cwd()
          .split("/")
          .filter((name) => name !== "")
          .map(() => ".."),
        join(parent, "link")
      )
      assert.notStrictEqual(dirname(relative)[0], "/")
      const { provider } = yield* provide(relative)
      run(inPlace(join(parent, "real"))(second))
      assert.isTrue(Option.isSome(yield* until(provider, second)))
    })
  )
})
