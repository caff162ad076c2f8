/** The JSON form of events is what their documentation shows. */
import { readFileSync } from "node:fs"
import { AuditEvent } from "@agentweave/transport"
import { describe, expect, it } from "@effect/vitest"
import { Either, Schema } from "effect"

const source = readFileSync(new URL("../src/AuditEvent.ts", import.meta.url), "utf8")

/** The example in the comment of each event, by the event's name. */
const documented = Array.from(
  source.matchAll(/ \* ```json\n \* (.*)\n \* ```\n(?: \*.*\n)*? \*\/\nexport const (\w+) = /g),
  ([, line = "", name = ""]) => ({ name, line })
)

const decode = Schema.decodeUnknownEither(Schema.parseJson(AuditEvent.AuditEvent), { onExcessProperty: "error" })

it("every event has one example, under its own name", () => {
  const names = AuditEvent.AuditEvent.members.map(
    (member) => Object.entries(AuditEvent).find(([, value]) => value === member)?.[0]
  )
  expect(names).toHaveLength(13)
  expect(documented.map(({ name }) => name)).toEqual(names)
})

describe("the example of", () => {
  for (const { line, name } of documented) {
    it(`${name} is an event, and its JSON form again`, () => {
      const event = Either.getOrThrow(decode(line))
      expect(event._tag).toBe(name)
      expect(JSON.stringify(Schema.encodeSync(AuditEvent.AuditEvent)(event))).toBe(line)
      expect(JSON.stringify(event)).toBe(line)
    })
  }
})
