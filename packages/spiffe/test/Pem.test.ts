import { Buffer } from "node:buffer"
import { assert, describe, it } from "@effect/vitest"
import { Either } from "effect"
import { encode, parse } from "../src/internal/der/pem.js"

const block = (body: string, label = "CERTIFICATE") => `-----BEGIN ${label}-----\n${body}\n-----END ${label}-----\n`

const answer = (text: string) =>
  Either.match(parse(text), {
    onLeft: (problem) => problem,
    onRight: (blocks) => blocks.map(({ bytes, label }) => `${label} ${bytes.toString("latin1")}`).join(", ")
  })

describe("PEM", () => {
  const rows: ReadonlyArray<readonly [name: string, text: string, answer: string]> = [
    ["nothing", "", ""],
    ["text without blocks", "hello\nworld", ""],
    ["a block", block("YWJj"), "CERTIFICATE abc"],
    ["a block in lines", block("YW\nJj\n"), "CERTIFICATE abc"],
    ["padding", block("YWI="), "CERTIFICATE ab"],
    ["carriage returns and spaces at line ends", block("YWJj").replaceAll("\n", " \r\n"), "CERTIFICATE abc"],
    ["text around blocks", `a\n${block("YWJj")}b\n${block("ZGVm", "X")}c`, "CERTIFICATE abc, X def"],
    ["an unended block", "-----BEGIN X-----\nYWJj", "PEM block without an end"],
    ["an unended block after a whole one", `${block("YWJj")}-----BEGIN X-----\nYWJj\n`, "PEM block without an end"],
    ["a block within a block", `-----BEGIN X-----\nYWJj\n${block("YWJj")}`, "PEM block not ended before line 3"],
    ["an end of another kind", block("YWJj").replace("END C", "END X"), "PEM block not ended before line 3"],
    ["an end alone", "x\n-----END X-----\n", "stray PEM boundary in line 2"],
    ["a beginning that is misspelt", "-----BEGIN X----\n", "stray PEM boundary in line 1"],
    ["an empty block", block(""), "PEM block that ends in line 3 is not base64"],
    ["a character too many", block("YWJj!"), "PEM block that ends in line 3 is not base64"],
    [
      "a character that is not base64 among those that are",
      block("YW!Jj"),
      "PEM block that ends in line 3 is not base64"
    ],
    ["characters of the URL alphabet", block("YW-_"), "PEM block that ends in line 3 is not base64"],
    ["headers", block("Proc-Type: 4,ENCRYPTED\n\nYWJj"), "PEM block that ends in line 5 is not base64"],
    ["padding left out", block("YWI"), "PEM block that ends in line 3 is not base64"],
    ["padding in the middle", block("YWI=YWJj"), "PEM block that ends in line 3 is not base64"]
  ]
  for (const [name, text, expected] of rows) it(name, () => assert.strictEqual(answer(text), expected))

  it("what is written is read, 64 characters a line", () => {
    for (const length of [0, 1, 2, 3, 47, 48, 49, 96, 500]) {
      const bytes = Buffer.alloc(length, "abcdefg")
      const text = encode("CERTIFICATE", bytes)
      assert.isTrue(text.split("\n").every((line) => line.length <= 64))
      if (length > 0) assert.strictEqual(answer(text), `CERTIFICATE ${bytes.toString("latin1")}`)
    }
  })

  it("a problem never repeats what is in a block", () => {
    const secret = "c2VjcmV0IQ"
    for (const text of [
      block(secret),
      `-----BEGIN X-----\n${secret}\n`,
      `-----BEGIN X-----\n${secret}\n-----BEGIN X-----\n`
    ]) {
      assert.isTrue(Either.isLeft(parse(text)))
      assert.notInclude(answer(text), secret)
    }
  })
})
