/** The page as one HTML text: its style and its script are in it, and its policy allows nothing but these two. */
import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"
import * as Effect from "effect/Effect"

export interface Page {
  readonly html: string
  readonly contentSecurityPolicy: string
}

/** In the order in which they need each other. */
const modules = ["render", "format", "charts", "state", "peers", "lists", "main"] as const

/** The files are beside `src` and beside `dist` alike. */
const read = (name: string): Effect.Effect<string> =>
  Effect.promise(() => readFile(new URL(`../../page/${name}`, import.meta.url), "utf8"))

/** The modules as one script. They import from each other alone, and no two of them declare the same name. */
const joined = (texts: ReadonlyArray<string>): string =>
  texts.map((text) => text.replaceAll(/^import [^"]*"\.\/[a-z]+\.js"\n/gm, "").replaceAll(/^export /gm, "")).join("\n")

const hashOf = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`

/** Fails only where files of this package are missing. */
export const load: Effect.Effect<Page> = Effect.gen(function* () {
  const frame = yield* read("index.html")
  const style = yield* read("style.css")
  const script = `"use strict";{\n${joined(yield* Effect.forEach(modules, (name) => read(`${name}.js`)))}}`
  return {
    html: frame.replace("/*style*/", () => style).replace("/*script*/", () => script),
    contentSecurityPolicy: [
      "default-src 'none'",
      `script-src ${hashOf(script)}`,
      `style-src ${hashOf(style)}`,
      "connect-src 'self'",
      "img-src data:",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
      "require-trusted-types-for 'script'",
      "trusted-types 'none'"
    ].join("; ")
  }
})
