import { Buffer } from "node:buffer"
import { assert, describe, it } from "@effect/vitest"
import type { NameForm } from "../src/internal/der/extensions.js"
import { findViolation } from "../src/internal/gate/nameConstraints.js"

const names = (form: NameForm, values: ReadonlyArray<string> = []) => values.map((value) => ({ form, value }))

/** Whether a certificate with one name of this form is refused by these subtrees of the same form. */
const isRefused = (
  form: NameForm,
  name: string,
  subtrees: { readonly permitted?: ReadonlyArray<string>; readonly excluded?: ReadonlyArray<string> }
): boolean =>
  findViolation(
    { permitted: names(form, subtrees.permitted), excluded: names(form, subtrees.excluded) },
    { subject: "0\0", extensions: { subjectAltNames: names(form, [name]) } }
  ) !== undefined

const uri = "uniformResourceIdentifier"
const dns = "dNSName"

/** name, base of a subtree, refused when it is the only one permitted, refused when it is excluded. */
type Row = readonly [name: string, base: string, permitted: "in" | "out", excluded: "in" | "out"]

const check = (form: NameForm, rows: ReadonlyArray<Row>) => {
  for (const [name, base, permitted, excluded] of rows) {
    it(`${JSON.stringify(name)} and ${JSON.stringify(base)}: permitted ${permitted}, excluded ${excluded}`, () => {
      assert.strictEqual(isRefused(form, name, { permitted: [base] }), permitted === "out", "permitted")
      assert.strictEqual(isRefused(form, name, { excluded: [base] }), excluded === "out", "excluded")
    })
  }
}

describe("URI constraints are about the host", () => {
  check(uri, [
    ["spiffe://example.org/x", "example.org", "in", "out"],
    ["spiffe://example.org/x", "EXAMPLE.org", "in", "out"],
    ["spiffe://example.org", "example.org", "in", "out"],
    ["https://Example.ORG/x", "example.org", "in", "out"],
    ["spiffe://a.example.org/x", "example.org", "out", "in"],
    ["spiffe://a.example.org/x", ".example.org", "in", "out"],
    ["spiffe://a.b.example.org/x", ".example.org", "in", "out"],
    ["spiffe://example.org/x", ".example.org", "out", "in"],
    ["spiffe://evilexample.org/x", ".example.org", "out", "in"],
    ["spiffe://evil.test/example.org", "example.org", "out", "in"],
    ["spiffe://example.org.evil.test/x", "example.org", "out", "in"]
  ])
})

describe("URIs and constraints that cannot be judged are refused both ways", () => {
  check(uri, [
    ["spiffe://user@example.org/x", "example.org", "out", "out"],
    ["spiffe://example.org:443/x", "example.org", "out", "out"],
    ["spiffe://[::1]/x", "example.org", "out", "out"],
    ["spiffe://ex%61mple.org/x", "example.org", "out", "out"],
    ["spiffe://example.org./x", "example.org", "out", "out"],
    ["spiffe:///x", "example.org", "out", "out"],
    ["urn:example.org", "example.org", "out", "out"],
    ["spiffe://example.org/x", "", "out", "out"],
    ["spiffe://example.org/x", ".", "out", "out"],
    ["spiffe://example.org/x", "spiffe://example.org", "out", "out"],
    ["spiffe://example.org/x", "*.org", "out", "out"]
  ])
})

describe("DNS constraints hold for a name and all below it", () => {
  check(dns, [
    ["example.org", "example.org", "in", "out"],
    ["A.Example.org", "example.ORG", "in", "out"],
    ["a.b.example.org", "example.org", "in", "out"],
    ["evilexample.org", "example.org", "out", "in"],
    ["a.example.org", ".example.org", "in", "out"],
    ["example.org", ".example.org", "out", "in"],
    ["anything.test", "", "in", "out"],
    ["*.example.org", "example.org", "in", "out"],
    // A wildcard stands for names inside the subtree and for others: neither permitted nor free of what is excluded.
    ["*.example.org", "a.example.org", "out", "out"],
    ["*.example.org", "other.test", "out", "in"]
  ])
})

describe("DNS names and constraints that cannot be judged are refused both ways", () => {
  check(dns, [
    ["example.org.", "example.org", "out", "out"],
    ["", "example.org", "out", "out"],
    ["a..example.org", "example.org", "out", "out"],
    ["a b.example.org", "example.org", "out", "out"],
    ["example.org\0.evil.test", "example.org", "out", "out"],
    ["example.org", "example.org.", "out", "out"],
    ["example.org", "exa mple.org", "out", "out"]
  ])
})

describe("subtrees together", () => {
  it("one permitted subtree is enough, one excluded subtree is too much", () => {
    const name = "spiffe://example.org/x"
    assert.isFalse(isRefused(uri, name, { permitted: ["other.test", "example.org"] }))
    assert.isTrue(isRefused(uri, name, { excluded: ["other.test", "example.org"] }))
    assert.isTrue(isRefused(uri, name, { permitted: ["example.org"], excluded: ["example.org"] }))
    assert.isFalse(isRefused(uri, name, { permitted: ["example.org"], excluded: ["other.test"] }))
  })

  it("one subtree that cannot be judged is too much, on either side", () => {
    const name = "spiffe://example.org/x"
    assert.isTrue(isRefused(uri, name, { permitted: ["example.org", "spiffe://example.org"] }))
    assert.isTrue(isRefused(uri, name, { excluded: ["other.test", "spiffe://other.test"] }))
  })

  it("a subtree constrains names of its own form only", () => {
    const subjectAltNames = names(uri, ["spiffe://example.org/x"])
    const constraints = { permitted: names(dns, ["other.test"]), excluded: [] }
    assert.isUndefined(findViolation(constraints, { subject: "0\0", extensions: { subjectAltNames } }))
  })

  it("every name of a form is judged, not the first alone", () => {
    const subjectAltNames = names(dns, ["a.example.org", "b.evil.test"])
    const constraints = { permitted: names(dns, ["example.org"]), excluded: [] }
    assert.isDefined(findViolation(constraints, { subject: "0\0", extensions: { subjectAltNames } }))
  })
})

const bytes = (...octets: ReadonlyArray<number>) => String.fromCharCode(...octets)
const six = (last: number) => bytes(0x20, 1, 0xd, 0xb8, ...Array<number>(11).fill(0), last)
const net = (...mask: ReadonlyArray<number>) => bytes(10, 1, 0, 0, ...mask)

describe("IP constraints are addresses with a mask", () => {
  check("iPAddress", [
    [bytes(10, 1, 2, 3), net(255, 255, 0, 0), "in", "out"],
    [bytes(10, 2, 2, 3), net(255, 255, 0, 0), "out", "in"],
    [bytes(10, 1, 128, 1), net(255, 255, 128, 0), "out", "in"],
    [bytes(10, 1, 127, 1), net(255, 255, 128, 0), "in", "out"],
    [bytes(10, 2, 2, 3), net(0, 0, 0, 0), "in", "out"],
    [six(1), six(0) + bytes(...Array<number>(15).fill(255), 0), "in", "out"],
    [six(1), six(0) + bytes(...Array<number>(16).fill(255)), "out", "in"],
    [six(1), net(0, 0, 0, 0), "out", "in"],
    // A mask with holes, and what is no address.
    [bytes(10, 1, 2, 3), net(255, 0, 255, 0), "out", "out"],
    [bytes(10, 1, 2, 3), net(255, 255, 0, 1), "out", "out"],
    [bytes(10, 1, 2, 3), "10.0.0.0/8", "out", "out"],
    ["10.1.2.3", net(255, 0, 0, 0), "out", "out"],
    [bytes(10, 1, 2), net(255, 0, 0, 0), "out", "out"]
  ])
})

describe("email constraints are a mailbox, a host, or all hosts below one", () => {
  check("rfc822Name", [
    ["ops@example.org", "example.org", "in", "out"],
    ["ops@EXAMPLE.org", "example.ORG", "in", "out"],
    ["ops@a.example.org", "example.org", "out", "in"],
    ["ops@a.example.org", ".example.org", "in", "out"],
    ["ops@example.org", ".example.org", "out", "in"],
    ["ops@example.org", "ops@example.org", "in", "out"],
    ["dev@example.org", "ops@example.org", "out", "in"],
    // The case of a local part counts, yet nobody is to slip out of an exclusion by it.
    ["Ops@example.org", "ops@example.org", "out", "out"],
    ["example.org", "example.org", "out", "out"],
    ["a@b@example.org", "example.org", "out", "out"],
    ['"a@evil.test"@example.org', "example.org", "out", "out"],
    ["ops@example.org", "", "out", "out"],
    ["ops@example.org.", "example.org", "out", "out"],
    ["ops@example.org\0.evil.test", "example.org", "out", "out"]
  ])
})

describe("directory names are within a name that begins as they do, whatever the case, spaces and kind of string", () => {
  const element = (tag: number, ...contents: ReadonlyArray<Buffer>) => {
    const body = Buffer.concat(contents)
    return Buffer.concat([Buffer.of(tag, body.length), body])
  }
  const relative = (oid: string, text: string, tag = 0x0c) =>
    element(0x31, element(0x30, Buffer.from(oid, "hex"), element(tag, Buffer.from(text))))
  const name = (...parts: ReadonlyArray<Buffer>) => element(0x30, ...parts).toString("latin1")
  const organization = (text: string, tag?: number) => relative("060355040a", text, tag)
  const common = (text: string) => relative("0603550403", text)
  const base = name(organization("Example Org"))
  check("directoryName", [
    [name(organization("Example Org"), common("x")), base, "in", "out"],
    [name(organization("Example Org")), base, "in", "out"],
    [name(organization(" EXAMPLE  org ", 0x13), common("x")), base, "in", "out"],
    [name(organization("Example Organisation"), common("x")), base, "out", "in"],
    [name(common("x"), organization("Example Org")), base, "out", "in"],
    [name(organization("Other"), organization("Example Org")), base, "out", "in"],
    [name(common("Example Org")), base, "out", "in"],
    [name(organization("x")), name(), "in", "out"],
    ["no name", base, "out", "out"],
    [name(organization("x")), "no name", "out", "out"]
  ])
})

describe("forms whose constraints are not processed", () => {
  const constrained = (form: NameForm, side: "permitted" | "excluded") => ({
    permitted: [],
    excluded: [],
    [side]: names(form, ["anything"])
  })
  const forms: ReadonlyArray<NameForm> = ["otherName", "x400Address", "ediPartyName", "registeredID"]
  for (const form of forms) {
    for (const side of ["permitted", "excluded"] as const) {
      it(`${form}, ${side}: refuses who has such a name and nobody else`, () => {
        const constraints = constrained(form, side)
        const others = names(uri, ["spiffe://example.org/x"])
        const having = [...others, ...names(form, ["anything"])]
        assert.isDefined(findViolation(constraints, { subject: "0\0", extensions: { subjectAltNames: having } }))
        assert.isUndefined(findViolation(constraints, { subject: "0\0", extensions: { subjectAltNames: others } }))
      })
    }
  }

  it("an email address beyond ASCII is one that a constraint on email addresses refuses", () => {
    const mailbox = bytes(6, 8, 0x2b, 6, 1, 5, 5, 7, 8, 9, 0xa0, 3, 0x0c, 1, 0x61)
    const other = bytes(6, 3, 0x2b, 6, 1, 0xa0, 3, 0x0c, 1, 0x61)
    const constraints = { permitted: names("rfc822Name", ["internal"]), excluded: [] }
    const having = (value: string) => ({ subject: "0\0", extensions: { subjectAltNames: names("otherName", [value]) } })
    assert.isDefined(findViolation(constraints, having(mailbox)))
    assert.isUndefined(findViolation(constraints, having(other)))
  })

  it("a directory name and an email address can be in the subject", () => {
    const extensions = { subjectAltNames: [] }
    const subject = Buffer.from("3012 3110 300e 06092a864886f70d010901 1601 61".replaceAll(" ", ""), "hex")
    const named = { subject: subject.toString("latin1"), extensions }
    assert.isDefined(findViolation(constrained("directoryName", "excluded"), named))
    assert.isDefined(findViolation(constrained("rfc822Name", "permitted"), named))
    assert.isUndefined(findViolation(constrained("iPAddress", "permitted"), named))
  })
})
