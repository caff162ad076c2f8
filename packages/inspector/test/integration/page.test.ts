import { createHash } from "node:crypto"
import { Script } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { call } from "./http.js"
import { start } from "./world.js"

const get = (headers: Record<string, string> = {}) =>
  Effect.flatMap(start(), ({ port }) => call({ port, path: "/", headers }))

const inlined = (html: string, tag: "script" | "style"): string =>
  new RegExp(`<${tag}>([^]*)</${tag}>`).exec(html)?.[1] ?? ""

const hashOf = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`

describe("the page", () => {
  it.scoped("is one document of less than 300 KiB that names no other address", () =>
    Effect.gen(function* () {
      const { body, headers, status } = yield* get()
      assert.deepStrictEqual([status, headers["content-type"]], [200, "text/html; charset=utf-8"])
      assert.isBelow(Buffer.byteLength(body), 300 * 1024)
      const addresses = body.match(/\b(?:https?:|wss?:)?\/\/[\w.-]+/g) ?? []
      assert.deepStrictEqual(new Set(addresses), new Set(["http://www.w3.org"]), "but the namespace of SVG")
      assert.notMatch(body, /\s(?:src|on\w+)=/)
    })
  )

  it.scoped(
    "has a policy that allows its own script and its own style, by their hashes, and requests to its own origin",
    () =>
      Effect.gen(function* () {
        const { body, headers } = yield* get()
        const [script, style] = [inlined(body, "script"), inlined(body, "style")]
        new Script(script)
        const policy = `${headers["content-security-policy"]}`.split("; ")
        assert.includeMembers(policy, [
          "default-src 'none'",
          `script-src ${hashOf(script)}`,
          `style-src ${hashOf(style)}`,
          "connect-src 'self'",
          "frame-ancestors 'none'",
          "require-trusted-types-for 'script'"
        ])
        assert.notMatch(policy.join(), /unsafe|\*|https?:/)
        assert.deepInclude(headers, {
          "x-frame-options": "DENY",
          "x-content-type-options": "nosniff",
          "referrer-policy": "no-referrer",
          "cache-control": "no-store"
        })
      })
  )

  it.scoped("may be reached by a link on another site, and by no name that resolves to this machine", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* get({ "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" })).status, 200)
      assert.strictEqual((yield* get({ host: "evil.example" })).status, 421)
    })
  )
})
