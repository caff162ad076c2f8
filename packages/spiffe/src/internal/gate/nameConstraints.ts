import type { GeneralName, NameConstraints, NameForm } from "../der/extensions.js"
import { emailAddresses } from "./distinguishedName.js"
import { type ProcessedForm, processed, type Subtree } from "./nameForms.js"

/*
 * RFC 5280 section 4.2.1.10. A constraint on a form of name that is not processed refuses every certificate that has a name
 * of that form, as the RFC demands of those who do not process it. What cannot be judged, a name or a constraint that is not
 * plain, is refused: neither permitted nor surely not excluded.
 */

/** Comparisons of a name with a constraint for one peer, whatever it sends: some milliseconds. */
export const maxNameComparisons = 65_536

const emptyName = "\x30\x00"

/** The constrained names of a certificate: its alternative names, and its subject where a name form can be in it. */
export interface Named {
  readonly subject: string
  readonly extensions: { readonly subjectAltNames: ReadonlyArray<GeneralName> }
}

/** The type of an otherName that is an email address beyond ASCII (RFC 9598 section 3), as DER, one character a byte. */
const smtpUtf8Mailbox = "\x06\x08\x2b\x06\x01\x05\x05\x07\x08\x09"

/** Constraints on email addresses hold for these too (RFC 9598 section 6). They are not read: none can be judged. */
const hasUnreadMailbox = ({ extensions }: Named): boolean =>
  extensions.subjectAltNames.some(({ form, value }) => form === "otherName" && value.startsWith(smtpUtf8Mailbox))

const namesOf = ({ extensions, subject }: Named, form: NameForm): ReadonlyArray<string> => {
  const names = extensions.subjectAltNames.filter((name) => name.form === form).map(({ value }) => value)
  if (form === "directoryName" && subject !== emptyName) names.push(subject)
  if (form === "rfc822Name") names.push(...emailAddresses(subject))
  if (form === "rfc822Name" && hasUnreadMailbox({ extensions, subject })) names.push("")
  return names
}

/** The subtrees of one form, with `undefined` for one that cannot be judged. */
interface Rules {
  readonly form: ProcessedForm
  readonly permitted: ReadonlyArray<Subtree | undefined>
  readonly excluded: ReadonlyArray<Subtree | undefined>
}

const basesOf = (subtrees: ReadonlyArray<GeneralName>, form: NameForm): ReadonlyArray<string> =>
  subtrees.filter((base) => base.form === form).map(({ value }) => value)

/** Constraints are made ready once, for as long as the certificate that has them is known. */
const compiled = new WeakMap<NameConstraints, Map<NameForm, Rules>>()

const rulesFor = (constraints: NameConstraints, name: NameForm, form: ProcessedForm): Rules => {
  const known = compiled.get(constraints) ?? new Map<NameForm, Rules>()
  compiled.set(constraints, known)
  const rules = known.get(name) ?? {
    form,
    permitted: basesOf(constraints.permitted, name).map(form.subtree),
    excluded: basesOf(constraints.excluded, name).map(form.subtree)
  }
  known.set(name, rules)
  return rules
}

const violates = ({ excluded, form, permitted }: Rules, value: string): boolean => {
  const name = form.read(value)
  return (
    name === undefined ||
    permitted.includes(undefined) ||
    excluded.some((subtree) => subtree === undefined || subtree.touches(name)) ||
    (permitted.length > 0 && !permitted.some((subtree) => subtree?.contains(name)))
  )
}

/** A certificate whose names were not compared with the constraints: that would be too much work. */
export const tooManyComparisons = Symbol("tooManyComparisons")

/** How many comparisons are left. */
export interface Allowance {
  comparisons: number
}

const describeName = (form: NameForm, value: string): string => `${form} ${JSON.stringify(value.slice(0, 256))}`

/** The first name of a certificate that constraints above it do not allow, for a message. */
export const findViolation = (
  constraints: NameConstraints,
  certificate: Named,
  allowance: Allowance = { comparisons: maxNameComparisons }
): string | typeof tooManyComparisons | undefined => {
  const forms = new Set([...constraints.permitted, ...constraints.excluded].map((base) => base.form))
  for (const form of forms) {
    const names = namesOf(certificate, form)
    const rules = processed.get(form)
    if (names.length === 0) continue
    if (rules === undefined) return `a ${form}, a form whose constraints are not processed`
    allowance.comparisons -= names.length * (constraints.permitted.length + constraints.excluded.length)
    if (allowance.comparisons < 0) return tooManyComparisons
    const compiledRules = rulesFor(constraints, form, rules)
    const name = names.find((value) => violates(compiledRules, value))
    if (name !== undefined) return describeName(form, name)
  }
  return undefined
}
