/**
 * The forms of names whose constraints are processed (RFC 5280 section 4.2.1.10): URIs, DNS names, IP addresses, email
 * addresses and directory names.
 */
import type { NameForm } from "../der/extensions.js"
import { canonicalName } from "./distinguishedName.js"

/** A subtree, ready to be compared with names of its form. */
export interface Subtree {
  readonly contains: (name: string) => boolean
  /** Whether a name reaches into the subtree: more than what it surely contains, for subtrees that are excluded. */
  readonly touches: (name: string) => boolean
}

export interface ProcessedForm {
  /** The part of a name that is compared; undefined when it cannot be judged. */
  readonly read: (value: string) => string | undefined
  /** Undefined for a base that cannot be judged. */
  readonly subtree: (base: string) => Subtree | undefined
}

const plainName = /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/
const plainBase = /^\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*$/

const same = (contains: (name: string) => boolean): Subtree => ({ contains, touches: contains })

/** A host exactly, or with a leading period any host below it. */
const hostTree = (base: string): ((host: string) => boolean) =>
  base.startsWith(".") ? (host) => host.length > base.length && host.endsWith(base) : (host) => host === base

const authority = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/

/** The constraint is about the host. An empty one has no meaning. */
const uri: ProcessedForm = {
  read: (value) => {
    const host = authority.exec(value.toLowerCase())?.[1]
    return host !== undefined && plainName.test(host) ? host : undefined
  },
  subtree: (value) => {
    const base = value.toLowerCase()
    return plainBase.test(base) ? same(hostTree(base)) : undefined
  }
}

const dnsName = /^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$/

/** The name itself and all below it; with a leading period only those below; an empty constraint is every name. */
const dns: ProcessedForm = {
  read: (value) => {
    const name = value.toLowerCase()
    return dnsName.test(name) ? name : undefined
  },
  subtree: (value) => {
    const base = value.toLowerCase()
    if (base !== "" && !plainBase.test(base)) return undefined
    const below = base.startsWith(".") ? base : `.${base}`
    const contains = (name: string): boolean => base === "" || (base !== below && name === base) || name.endsWith(below)
    // A wildcard stands for names that may be within.
    return { contains, touches: (name) => contains(name) || (name.startsWith("*.") && below.endsWith(name.slice(1))) }
  }
}

const isMask = (octets: ReadonlyArray<number>): boolean =>
  /^1*0*$/.test(octets.map((octet) => octet.toString(2).padStart(8, "0")).join(""))

/** An address of 4 or 16 octets; a base is an address and a mask of as many, as of RFC 4632. */
const ip: ProcessedForm = {
  read: (value) => (value.length === 4 || value.length === 16 ? value : undefined),
  subtree: (base) => {
    if (base.length !== 8 && base.length !== 32) return undefined
    const octets = Array.from(base, (character) => character.charCodeAt(0))
    const mask = octets.slice(base.length / 2)
    if (!isMask(mask)) return undefined
    return same(
      (address) =>
        address.length === mask.length &&
        mask.every((bits, index) => (bits & (address.charCodeAt(index) ^ (octets[index] ?? 0))) === 0)
    )
  }
}

/** A local part without quotes, which would need to be read. */
const mailbox = /^([!#-?A-~]+)@([^@]+)$/

const readMailbox = (value: string): string | undefined => {
  const [, local, domain] = mailbox.exec(value) ?? []
  const host = domain?.toLowerCase()
  return host !== undefined && plainName.test(host) ? `${local}@${host}` : undefined
}

/** One mailbox; all of a host; with a leading period all of the hosts below. The case of a local part counts. */
const email: ProcessedForm = {
  read: readMailbox,
  subtree: (value) => {
    if (value.includes("@")) {
      const address = readMailbox(value)
      if (address === undefined) return undefined
      const folded = address.toLowerCase()
      return { contains: (name) => name === address, touches: (name) => name.toLowerCase() === folded }
    }
    const base = value.toLowerCase()
    const isWithin = hostTree(base)
    return plainBase.test(base) ? same((name) => isWithin(name.slice(name.lastIndexOf("@") + 1))) : undefined
  }
}

/** A name whose first relative names are those of the base. */
const directory: ProcessedForm = {
  read: canonicalName,
  subtree: (value) => {
    const base = canonicalName(value)
    return base === undefined ? undefined : same((name) => name.startsWith(base))
  }
}

export const processed: ReadonlyMap<NameForm, ProcessedForm> = new Map([
  ["uniformResourceIdentifier", uri],
  ["dNSName", dns],
  ["iPAddress", ip],
  ["rfc822Name", email],
  ["directoryName", directory]
])
