/**
 * The one place that loads `@peculiar/x509`.
 *
 * Version 2 refuses to load unless `Reflect.getMetadata` exists (its dependency tsyringe checks for a polyfill), and
 * uses no metadata afterwards. Inert stand-ins are present while it loads and are gone when it has, so that a real
 * polyfill the program may bring is neither replaced nor pre-empted.
 */
import { createRequire } from "node:module"

/** @internal */
export type X509 = typeof import("@peculiar/x509")

const standIns = ["getMetadata", "getOwnMetadata", "defineMetadata"] as const
const inert = (): undefined => undefined
const require = createRequire(import.meta.url)

/** @internal */
export const loadX509 = (): X509 => {
  const missing = standIns.filter((name) => !Reflect.has(Reflect, name))
  for (const name of missing) Reflect.defineProperty(Reflect, name, { configurable: true, value: inert })
  try {
    return require("@peculiar/x509")
  } finally {
    for (const name of missing) Reflect.deleteProperty(Reflect, name)
  }
}
