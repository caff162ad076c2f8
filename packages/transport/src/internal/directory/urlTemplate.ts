import * as SpiffeId from "@agentweave/spiffe/SpiffeId"
import * as Either from "effect/Either"
import { parseBase } from "../http/url.js"

/** A URL with placeholders in its host, taken apart. */
export interface Template {
  readonly text: string
  /** Before, between and after the placeholders of the host; the first holds the scheme, the last port and path. */
  readonly literals: ReadonlyArray<string>
  readonly placeholders: ReadonlyArray<Placeholder>
}

/** `n` is the n-th segment of the path, counted from 1. */
type Placeholder = "trustDomain" | "path" | number

const readPlaceholder = (name: string): Placeholder | undefined => {
  if (name === "trustDomain" || name === "path") return name
  return /^[1-9][0-9]?$/.test(name) ? Number(name) : undefined
}

/** Reads a template; the Left says what was expected and what came. */
export const parse = (text: string): Either.Either<Template, string> => {
  const got = `got ${JSON.stringify(text)}`
  const parts = text.split(/\{([^{}]*)\}/)
  const literals = parts.filter((_, index) => index % 2 === 0)
  const placeholders: Array<Placeholder> = []
  for (const name of parts.filter((_, index) => index % 2 === 1)) {
    const placeholder = readPlaceholder(name)
    if (placeholder === undefined) {
      return Either.left(`expected the placeholders {trustDomain}, {path}, {1} to {99}, ${got}`)
    }
    placeholders.push(placeholder)
  }
  if (placeholders.length === 0)
    return Either.left(`expected a placeholder, without one all peers share a name, ${got}`)
  const [scheme = "", ...rest] = literals
  const host = literals.slice(0, -1).join("").slice("https://".length)
  if (!scheme.startsWith("https://") || /[/:?#@\\]/.test(host) || /[{}]/.test(literals.join(""))) {
    return Either.left(`expected an https: URL with placeholders in its host only, ${got}`)
  }
  const sample = `${scheme}${rest.map((literal) => `x${literal}`).join("")}`
  return Either.mapBoth(parseBase(sample), {
    onLeft: (why) => `${why}, with x in place of each placeholder; ${got}`,
    onRight: () => ({ text, literals, placeholders })
  })
}

const label = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/** A label that stands for one in Unicode (RFC 5891 section 4.2.3.1). URL parsers differ in which of them they take; a path has no use for one. */
const reserved = /^..--/

const labelsOf = (template: Template, peer: SpiffeId.SpiffeId): Either.Either<ReadonlyArray<string>, string> => {
  const segments = SpiffeId.path(peer).slice(1).split("/")
  const values: Array<string> = []
  for (const placeholder of template.placeholders) {
    const labels =
      placeholder === "trustDomain"
        ? SpiffeId.trustDomain(peer).split(".")
        : placeholder === "path"
          ? segments
          : segments.slice(placeholder - 1, placeholder)
    if (labels.length === 0) {
      return Either.left(`expected at least ${placeholder} path segments for ${template.text}, got ${segments.length}`)
    }
    const bad = labels.find((text) => !label.test(text) || (placeholder !== "trustDomain" && reserved.test(text)))
    if (bad !== undefined) {
      return Either.left(
        `expected a DNS label (lower-case letters, digits, inner hyphens, not as in xn--, at most 63) for {${placeholder}}, got ${JSON.stringify(bad)}`
      )
    }
    values.push(labels.join("."))
  }
  return Either.right(values)
}

/** The URL for a peer; the Left says why there is none. */
export const expand = (template: Template, peer: SpiffeId.SpiffeId): Either.Either<string, string> =>
  Either.flatMap(labelsOf(template, peer), (values) => {
    const url = template.literals.map((literal, index) => literal + (values[index] ?? "")).join("")
    return Either.flatMap(parseBase(url), ({ host }) => {
      const expected = url.slice("https://".length).split(/[:/]/)[0]
      if (host !== expected) return Either.left(`expected a host name, ${JSON.stringify(expected)} reads as ${host}`)
      if (host.length > 253) return Either.left(`expected a host name of at most 253 characters, got ${host.length}`)
      if (/(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$/.test(host)) {
        return Either.left(`expected a host name, ${JSON.stringify(host)} reads as an IP address`)
      }
      return Either.right(url)
    })
  })
