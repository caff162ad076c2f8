import type { GeneralName, NameConstraints, NameForm } from "./extensions.js"

/*
 * RFC 5280 section 4.2.1.10. URI and DNS constraints are processed; a constraint on any other form of name refuses every
 * certificate that has a name of that form, as the RFC demands of those who do not process it. What cannot be judged,
 * a host or a constraint that is no plain name, is refused: neither permitted nor surely not excluded.
 */

const plainName = /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/
const plainBase = /^\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*$/
const dnsName = /^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$/
const authority = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/

const wildcard = "*."

interface ProcessedForm {
  /** The part of a name the constraint is about, lower-case; undefined when it cannot be judged. */
  readonly subject: (value: string) => string | undefined
  readonly isBase: (base: string) => boolean
  readonly isWithin: (name: string, base: string) => boolean
  /** Whether a name reaches into an excluded subtree: within it, or a wildcard for names that are. */
  readonly touches: (name: string, base: string) => boolean
}

/** A host exactly, or with a leading period any host below it; an empty constraint has no meaning for URIs. */
const isUriWithin = (host: string, base: string): boolean =>
  base.startsWith(".") ? host.length > base.length && host.endsWith(base) : host === base

/** The name itself and all below it; with a leading period only those below; an empty constraint is every name. */
const isDnsWithin = (name: string, base: string): boolean =>
  base === "" || (base.startsWith(".") ? name.endsWith(base) : name === base || name.endsWith(`.${base}`))

const processed: ReadonlyMap<NameForm, ProcessedForm> = new Map<NameForm, ProcessedForm>([
  [
    "uniformResourceIdentifier",
    {
      subject: (value) => {
        const host = authority.exec(value.toLowerCase())?.[1]
        return host !== undefined && plainName.test(host) ? host : undefined
      },
      isBase: (base) => plainBase.test(base),
      isWithin: isUriWithin,
      touches: isUriWithin
    }
  ],
  [
    "dNSName",
    {
      subject: (value) => (dnsName.test(value.toLowerCase()) ? value.toLowerCase() : undefined),
      isBase: (base) => base === "" || plainBase.test(base),
      isWithin: isDnsWithin,
      touches: (name, base) =>
        isDnsWithin(name, base) || (name.startsWith(wildcard) && `.${base}`.endsWith(name.slice(wildcard.length - 1)))
    }
  ]
])

/** DER of the OBJECT IDENTIFIER emailAddress, one character a byte: the one name form that can also be in a subject. */
const emailAddressOid = Buffer.from("06092a864886f70d010901", "hex").toString("latin1")
const emptyName = "\x30\x00"

/** What of a certificate is constrained: its alternative names, and its subject where a name form can be in it. */
export interface Named {
  readonly subject: string
  readonly extensions: { readonly subjectAltNames: ReadonlyArray<GeneralName> }
}

const hasName = (certificate: Named, form: NameForm): boolean =>
  certificate.extensions.subjectAltNames.some((name) => name.form === form) ||
  (form === "directoryName" && certificate.subject !== emptyName) ||
  (form === "rfc822Name" && certificate.subject.includes(emailAddressOid))

const violates = (
  form: ProcessedForm,
  value: string,
  permitted: ReadonlyArray<string>,
  excluded: ReadonlyArray<string>
) => {
  const name = form.subject(value)
  return (
    name === undefined ||
    !permitted.every(form.isBase) ||
    !excluded.every(form.isBase) ||
    (permitted.length > 0 && !permitted.some((base) => form.isWithin(name, base))) ||
    excluded.some((base) => form.touches(name, base))
  )
}

const bases = (subtrees: ReadonlyArray<GeneralName>, form: NameForm): ReadonlyArray<string> =>
  subtrees.filter((base) => base.form === form).map((base) => base.value.toLowerCase())

/** The first name of a certificate that constraints above it do not allow, for a message. */
export const findViolation = (constraints: NameConstraints, certificate: Named): string | undefined => {
  const forms = new Set([...constraints.permitted, ...constraints.excluded].map((base) => base.form))
  for (const form of forms) {
    const rules = processed.get(form)
    if (rules === undefined) {
      if (hasName(certificate, form)) return `a ${form}, a form whose constraints are not processed`
      continue
    }
    const permitted = bases(constraints.permitted, form)
    const excluded = bases(constraints.excluded, form)
    for (const name of certificate.extensions.subjectAltNames) {
      if (name.form === form && violates(rules, name.value, permitted, excluded)) {
        return `${form} ${JSON.stringify(name.value.slice(0, 256))}`
      }
    }
  }
  return undefined
}
