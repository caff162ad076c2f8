/**
 * The extensions of a certificate, as its profile has them.
 */
import type { CertificateProfile, GeneralSubtrees, KeyUsage, NameConstraints } from "../CertificateProfile.js"
import { bitString, fromHex, objectIdentifier, sequence, smallInteger, tlv, true_ } from "./der.js"

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)

const generalNames = {
  email: (value: string) => tlv(0x81, ascii(value)),
  dns: (value: string) => tlv(0x82, ascii(value)),
  uri: (value: string | Uint8Array) => tlv(0x86, typeof value === "string" ? ascii(value) : value),
  ip: (value: string) => tlv(0x87, Uint8Array.from(value.split("."), Number))
}

const subtrees = (tag: number, trees: GeneralSubtrees | undefined): ReadonlyArray<Uint8Array> => {
  const names = [
    ...(trees?.emails ?? []).map(generalNames.email),
    ...(trees?.dnsNames ?? []).map(generalNames.dns),
    ...(trees?.uris ?? []).map(generalNames.uri)
  ]
  return names.length === 0 ? [] : [tlv(tag, ...names.map((name) => sequence(name)))]
}

const nameConstraints = (constraints: NameConstraints): Uint8Array<ArrayBuffer> =>
  sequence(...subtrees(0xa0, constraints.permitted), ...subtrees(0xa1, constraints.excluded))

const purposes: Record<string, string> = { serverAuth: "1.3.6.1.5.5.7.3.1", clientAuth: "1.3.6.1.5.5.7.3.2" }

/** RFC 5280 section 4.2.1.3, in the order of the bits. */
const keyUsages: ReadonlyArray<KeyUsage> = [
  "digitalSignature",
  "nonRepudiation",
  "keyEncipherment",
  "dataEncipherment",
  "keyAgreement",
  "keyCertSign",
  "cRLSign",
  "encipherOnly",
  "decipherOnly"
]

/** Named bits: none after the last that is set. */
const keyUsage = (usages: ReadonlyArray<KeyUsage>): Uint8Array => {
  const set = usages.map((usage) => keyUsages.indexOf(usage))
  const length = Math.max(-1, ...set) + 1
  const octets = new Uint8Array(Math.ceil(length / 8))
  for (const bit of set) octets[bit >> 3] = (octets[bit >> 3] ?? 0) | (0x80 >> (bit & 7))
  return bitString(octets, octets.length * 8 - length)
}

/** What is written, in the order of writing. `kind` says what the profile leaves open. */
export const extensions = (
  profile: CertificateProfile,
  kind: { readonly ca: boolean; readonly uri: string },
  identifiers: { readonly subject: string; readonly authority: string }
): ReadonlyArray<Uint8Array> => {
  const list: Array<Uint8Array> = []
  const add = (oid: string, critical: boolean, value: Uint8Array) =>
    list.push(sequence(objectIdentifier(oid), ...(critical ? [true_] : []), tlv(0x04, value)))

  const basic = profile.basicConstraints ?? { ca: kind.ca }
  if (basic !== "Absent") {
    const pathLength = basic.pathLength === undefined ? [] : [smallInteger(basic.pathLength)]
    add("2.5.29.19", true, sequence(...(basic.ca ? [true_] : []), ...pathLength))
  }

  const usage = profile.keyUsage ?? (kind.ca ? ["keyCertSign", "cRLSign"] : ["digitalSignature"])
  if (usage !== "Absent") add("2.5.29.15", true, keyUsage(usage))

  const extended = profile.extendedKeyUsage ?? (kind.ca ? "Absent" : ["serverAuth", "clientAuth"])
  if (extended !== "Absent") {
    const oids = extended.map((purpose) => objectIdentifier(purposes[purpose] ?? purpose))
    add("2.5.29.37", false, sequence(...oids))
  }

  if (profile.subjectKeyIdentifier !== "Absent") add("2.5.29.14", false, tlv(0x04, fromHex(identifiers.subject)))
  if (profile.authorityKeyIdentifier !== "Absent") {
    add("2.5.29.35", false, sequence(tlv(0x80, fromHex(identifiers.authority))))
  }

  const names = [
    ...(profile.emails ?? []).map(generalNames.email),
    ...(profile.dnsNames ?? []).map(generalNames.dns),
    ...(profile.uris ?? [kind.uri]).map(generalNames.uri),
    ...(profile.ipAddresses ?? []).map(generalNames.ip)
  ]
  if (names.length > 0) add("2.5.29.17", false, sequence(...names))
  if (profile.nameConstraints !== undefined) add("2.5.29.30", true, nameConstraints(profile.nameConstraints))
  for (const { critical, oid, value } of profile.extensions ?? []) add(oid, critical, value)
  return list
}
