import { readFileSync } from "node:fs"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { run } from "./commandLine.js"

const version = (): unknown => JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")).version

const commands = ["dev-agent", "explain", "probe", "inspect", "svid show", "bundle show", "audit verify", "audit tail"]

const escapeCode = String.fromCharCode(27)

describe("agentweave", () => {
  it.effect("lists its commands, those of a group where one is named", () =>
    Effect.gen(function* () {
      const all = yield* run([])
      expect(all.exitCode).toBe(0)
      for (const command of commands) expect(all.out).toContain(`agentweave ${command} `)
      const audit = yield* run(["audit", "--help"])
      expect(audit.out.match(/^ {2}agentweave .*? {2}/gm)).toHaveLength(2)
    })
  )

  it.effect("explains each command, with its exit codes and the --json it has", () =>
    Effect.gen(function* () {
      for (const command of commands) {
        const { exitCode, out } = yield* run([...command.split(" "), "--help"])
        expect(exitCode, command).toBe(0)
        expect(out, command).toContain(`$ agentweave ${command} `)
        expect(out, command).toMatch(/Exit codes: .*2 /)
        expect(out, command).toContain("--json")
      }
    })
  )

  it.effect("has colours only where they are wanted", () =>
    Effect.gen(function* () {
      expect((yield* run(["probe", "--help"])).out).not.toContain(escapeCode)
      expect((yield* run(["probe", "--help"], { hasColours: true })).out).toContain(escapeCode)
    })
  )

  it.effect("says its version, and completes commands in a shell", () =>
    Effect.gen(function* () {
      expect((yield* run(["--version"])).out).toBe(version())
      for (const shell of ["bash", "zsh", "fish"]) {
        expect((yield* run(["--completions", shell])).out).toContain("dev-agent")
      }
    })
  )

  it.effect("refuses wrong use with 2 in one line, as JSON where that is asked for", () =>
    Effect.gen(function* () {
      const wrong = [
        ["frobnicate"],
        ["--wizard"],
        ["probe", "127.0.0.1:1"],
        ["probe", "nowhere", "--expect", "spiffe://example.org/api"],
        ["probe", "127.0.0.1:1", "--expect", "spiffe://example.org/api", "--cert", "a.pem"],
        ["probe", "127.0.0.1:1", "--expect", "spiffe://example.org/api", "--nope"],
        ["svid", "show", "--cert", "/does/not/exist"],
        ["bundle", "show", "/does/not/exist"],
        ["audit", "verify"],
        ["audit", "tail", "/does/not/exist"],
        ["explain", "--cert", "/does/not/exist"],
        ["explain", "--audit", "/does/not/exist"],
        ["explain", "--audit", "a.ndjson", "--cert", "a.pem"],
        ["inspect", "nowhere"],
        ["inspect", "ftp://127.0.0.1/"],
        ["inspect", "http://inspected.example:9471/"],
        ["inspect", "http://127.0.0.1:9471/", "--expect", "spiffe://example.org/web"],
        ["inspect", "https://inspected.example:9471/"],
        ["inspect", "https://127.0.0.1:9471/", "--expect", "spiffe://example.org/web", "--cert", "a.pem"],
        ["inspect", "--watch", "http://127.0.0.1:9471/", "again"],
        ["dev-agent", "--workload", "/web", "--socket", "/tmp/a"]
      ]
      for (const args of wrong) {
        const said = yield* run(args)
        expect(said, args.join(" ")).toMatchObject({ exitCode: 2, out: "" })
        expect(said.err, args.join(" ")).not.toBe("")
        const json = yield* run([...args, "--json"])
        expect(json, args.join(" ")).toMatchObject({ exitCode: 2, err: "" })
        const { error } = JSON.parse(json.out)
        expect(error._tag, args.join(" ")).toMatch(/Error$/)
        expect(error.message, args.join(" ")).not.toBe("")
      }
    })
  )
})
