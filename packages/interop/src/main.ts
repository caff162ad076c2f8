/**
 * `npm run interop`: our two ends against other implementations, each outcome held against what it must be. What a machine
 * lacks is left out and said so; a surprise is exit code 1. `npm run interop -- nginx curl` tries these only.
 */
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Effect } from "effect"
import { ofNginx } from "./nginx.js"
import { ofCurl, ofOpenssl, ofPeer, type Scenario } from "./scenarios.js"
import { command, goPeer, pythonPeer, type Tool, temporaryFolder } from "./tools.js"
import { ofVerifier } from "./verdicts.js"

interface Row {
  readonly name: string
  readonly outcome: string
  readonly verdict: "ok" | "SURPRISE" | "left out"
}

const play = ({ expected, name, outcome }: Scenario): Effect.Effect<Row> =>
  Effect.scoped(outcome).pipe(
    Effect.timeout("2 minutes"),
    Effect.catchAllCause((cause) => Effect.succeed(`failed: ${Cause.pretty(cause).split("\n")[0]}`)),
    Effect.map((outcome): Row => ({ name, outcome, verdict: expected.test(outcome) ? "ok" : "SURPRISE" }))
  )

const say = (line: string) => Effect.sync(() => console.log(line))

const print = ({ name, outcome, verdict }: Row) =>
  say(`${verdict.padEnd(9)} ${name.padEnd(72)} ${outcome.replaceAll(/\s+/g, " ").slice(0, 120)}`)

/** The groups that were asked for; all of them where none is named. */
const wanted = process.argv.slice(2)

const group = <A>(
  label: string,
  find: Effect.Effect<Tool<A>>,
  scenarios: (value: A) => ReadonlyArray<Scenario>
): Effect.Effect<ReadonlyArray<Row>> =>
  Effect.gen(function* () {
    if (wanted.length > 0 && !wanted.includes(label)) return []
    const tool = yield* find
    if (tool._tag === "There") {
      return yield* Effect.forEach(scenarios(tool.value), (scenario) => Effect.tap(play(scenario), print))
    }
    const row: Row = { name: label, outcome: tool.why, verdict: "left out" }
    yield* print(row)
    return [row]
  })

const main = Effect.gen(function* () {
  const root = yield* temporaryFolder
  const folder = (name: string) =>
    Effect.promise(async () => {
      const path = join(root, name)
      await mkdir(path, { mode: 0o700 })
      return path
    })
  const sockets = yield* folder("s")
  const rows = [
    ...(yield* group("go-spiffe", goPeer(root), (peer) => [
      ...ofVerifier("go-spiffe", peer),
      ...ofPeer("go-spiffe", peer, sockets)
    ])),
    ...(yield* group("py-spiffe", pythonPeer(root), (peer) => ofPeer("py-spiffe", peer, sockets))),
    ...(yield* group("curl", command("curl", "--version"), () => ofCurl(sockets))),
    ...(yield* group("openssl", command("openssl", "version"), () => ofOpenssl(sockets))),
    ...(yield* group("nginx", command("nginx", "-v"), () => ofNginx(sockets)))
  ]
  const count = (verdict: Row["verdict"]) => rows.filter((row) => row.verdict === verdict).length
  yield* say(`${count("ok")} ok, ${count("SURPRISE")} surprises, ${count("left out")} left out`)
  if (count("SURPRISE") > 0) process.exitCode = 1
})

NodeRuntime.runMain(Effect.scoped(main))
