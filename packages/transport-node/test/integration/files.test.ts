import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import { dirname, join } from "node:path"
import { IdentityProvider, type X509Context } from "@agentweave/spiffe"
import { type IdentityFileEvent, NodeIdentity } from "@agentweave/transport-node"
import { assert, describe } from "@effect/vitest"
import { Config, ConfigProvider, Context, Effect, Exit, Layer, Option, Stream } from "effect"
import { directory, filesIn, type Generation, generations, inPlace, publishers, quiet, run } from "./filePublishers.js"

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
