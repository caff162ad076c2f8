import type { Element } from "./der.js"
import * as der from "./der.js"

/** GeneralName forms by their context tag (RFC 5280 section 4.2.1.6). */
const forms: ReadonlyMap<number, NameForm> = new Map<number, NameForm>([
  [0xa0, "otherName"],
  [0x81, "rfc822Name"],
  [0x82, "dNSName"],
  [0xa3, "x400Address"],
  [0xa4, "directoryName"],
  [0xa5, "ediPartyName"],
  [0x86, "uniformResourceIdentifier"],
  [0x87, "iPAddress"],
  [0x88, "registeredID"]
])

export type NameForm =
  | "otherName"
  | "rfc822Name"
  | "dNSName"
  | "x400Address"
  | "directoryName"
  | "ediPartyName"
  | "uniformResourceIdentifier"
  | "iPAddress"
  | "registeredID"

/** A GeneralName; `value` holds its content one character a byte. */
export interface GeneralName {
  readonly form: NameForm
  readonly value: string
}

export interface BasicConstraints {
  readonly ca: boolean
  readonly pathLength: number | undefined
}

export interface NameConstraints {
  readonly permitted: ReadonlyArray<GeneralName>
  readonly excluded: ReadonlyArray<GeneralName>
}

/** Bits of KeyUsage (RFC 5280 section 4.2.1.3). */
export const keyUsageBits = { digitalSignature: 1, keyCertSign: 1 << 5, cRLSign: 1 << 6 } as const

/** id-kp-serverAuth and id-kp-clientAuth (RFC 5280 section 4.2.1.12), as hex of the OID's content. */
export const extendedKeyUsages = { serverAuth: "2b06010505070301", clientAuth: "2b06010505070302" } as const

/** The extensions the gate processes; every other one that is critical is in `unknownCritical`. */
export interface Extensions {
  readonly basicConstraints: BasicConstraints | undefined
  readonly keyUsage: number | undefined
  readonly extendedKeyUsage: ReadonlyArray<string> | undefined
  readonly subjectAltNames: ReadonlyArray<GeneralName>
  readonly nameConstraints: NameConstraints | undefined
  readonly subjectKeyIdentifier: string | undefined
  readonly authorityKeyIdentifier: string | undefined
  /** Dotted OIDs. */
  readonly unknownCritical: ReadonlyArray<string>
}

const readGeneralName = (cursor: Element): GeneralName => {
  const element = der.next(cursor, "general name")
  const form = forms.get(element.tag) ?? der.fail("unknown form of general name", element.start)
  return { form, value: der.latin1(element) }
}

const readBasicConstraints = (sequence: Element): BasicConstraints => {
  const flag = der.optional(sequence, der.tags.boolean, "cA")
  const ca = flag !== undefined && der.boolean(flag, "cA")
  const limit = der.optional(sequence, der.tags.integer, "pathLenConstraint")
  const pathLength = limit === undefined ? undefined : der.smallUnsigned(limit, "pathLenConstraint")
  return { ca, pathLength }
}

const readAll = <A>(sequence: Element, what: string, item: (cursor: Element) => A): ReadonlyArray<A> => {
  if (der.atEnd(sequence)) der.fail(`${what} empty`, sequence.start)
  const items: Array<A> = []
  while (!der.atEnd(sequence)) items.push(item(sequence))
  return items
}

const readKeyPurpose = (cursor: Element): string =>
  der.oid(der.read(cursor, der.tags.oid, "key purpose"), "key purpose")

/** RFC 5280 section 4.2.1.10: minimum is zero, so DER leaves it out, and maximum is absent. */
const readSubtree = (cursor: Element): GeneralName => {
  const subtree = der.read(cursor, der.tags.sequence, "general subtree")
  const base = readGeneralName(subtree)
  der.finish(subtree, "base of a general subtree")
  return base
}

const readSubtrees = (sequence: Element, tag: number, what: string): ReadonlyArray<GeneralName> => {
  const subtrees = der.optional(sequence, tag, what)
  return subtrees === undefined ? [] : readAll(subtrees, what, readSubtree)
}

const readNameConstraints = (sequence: Element): NameConstraints => {
  if (der.atEnd(sequence)) der.fail("name constraints empty", sequence.start)
  const permitted = readSubtrees(sequence, 0xa0, "permitted subtrees")
  const excluded = readSubtrees(sequence, 0xa1, "excluded subtrees")
  return { permitted, excluded }
}

const readAuthorityKeyIdentifier = (sequence: Element): string | undefined => {
  const key = der.optional(sequence, 0x80, "key identifier")
  der.optional(sequence, 0xa1, "authority certificate issuer")
  der.optional(sequence, 0x82, "authority certificate serial number")
  return key === undefined ? undefined : der.hex(key)
}

/** Reads the SEQUENCE OF Extension of a certificate. RFC 5280 section 4.2: no extension may occur twice. */
export const readExtensions = (extensions: Element): Extensions => {
  const seen = new Set<string>()
  const unknownCritical: Array<string> = []
  let basicConstraints: BasicConstraints | undefined
  let keyUsage: number | undefined
  let extendedKeyUsage: ReadonlyArray<string> | undefined
  let subjectAltNames: ReadonlyArray<GeneralName> = []
  let nameConstraints: NameConstraints | undefined
  let subjectKeyIdentifier: string | undefined
  let authorityKeyIdentifier: string | undefined

  if (der.atEnd(extensions)) der.fail("extensions empty", extensions.start)
  while (!der.atEnd(extensions)) {
    const extension = der.read(extensions, der.tags.sequence, "extension")
    const id = der.oid(der.read(extension, der.tags.oid, "extension id"), "extension id")
    if (seen.has(id)) der.fail(`extension ${der.dotted(id)} occurs twice`, extension.start)
    seen.add(id)
    const flag = der.optional(extension, der.tags.boolean, "critical")
    const critical = flag !== undefined && der.boolean(flag, "critical")
    const value = der.read(extension, der.tags.octetString, "extension value")
    der.finish(extension, "extension value")

    const sequence = (what: string): Element => der.read(value, der.tags.sequence, what)
    let inner: Element | undefined
    switch (id) {
      case "551d13":
        inner = sequence("basic constraints")
        basicConstraints = readBasicConstraints(inner)
        break
      case "551d0f":
        keyUsage = der.namedBits(der.read(value, der.tags.bitString, "key usage"), "key usage")
        break
      case "551d25":
        inner = sequence("extended key usage")
        extendedKeyUsage = readAll(inner, "extended key usage", readKeyPurpose)
        break
      case "551d11":
        inner = sequence("subject alternative names")
        subjectAltNames = readAll(inner, "subject alternative names", readGeneralName)
        break
      case "551d1e":
        inner = sequence("name constraints")
        nameConstraints = readNameConstraints(inner)
        break
      case "551d0e":
        if (critical) der.fail("subject key identifier that is critical (RFC 5280 section 4.2.1.2)", extension.start)
        subjectKeyIdentifier = der.hex(der.read(value, der.tags.octetString, "subject key identifier"))
        break
      case "551d23":
        if (critical) der.fail("authority key identifier that is critical (RFC 5280 section 4.2.1.1)", extension.start)
        inner = sequence("authority key identifier")
        authorityKeyIdentifier = readAuthorityKeyIdentifier(inner)
        break
      default:
        if (critical) unknownCritical.push(der.dotted(id))
        continue
    }
    if (inner !== undefined) der.finish(inner, `the fields of extension ${id}`)
    der.finish(value, `extension ${id}`)
  }
  return {
    basicConstraints,
    keyUsage,
    extendedKeyUsage,
    subjectAltNames,
    nameConstraints,
    subjectKeyIdentifier,
    authorityKeyIdentifier,
    unknownCritical
  }
}
