/**
 * Certificates for people: as values of `@peculiar/x509`, with their names and extensions at hand. The library is loaded when
 * it is first asked for; the gate judges without it, by a reader of its own.
 *
 * @since 0.1.0
 */
import { createRequire } from "node:module"
import * as Either from "effect/Either"
import { IdentityError } from "./IdentityError.js"

/**
 * The exports of `@peculiar/x509`.
 *
 * @since 0.1.0
 * @category models
 */
export type Library = typeof import("@peculiar/x509")

/**
 * A certificate as `@peculiar/x509` has it, for people and programs that look at its fields.
 *
 * @since 0.1.0
 * @category models
 */
export type X509Certificate = import("@peculiar/x509").X509Certificate

const standIns = ["getMetadata", "getOwnMetadata", "defineMetadata"] as const
const inert = (): undefined => undefined
const require = createRequire(import.meta.url)

/**
 * The library itself, for its classes of extensions. Version 2 refuses to load unless `Reflect.getMetadata` exists (its
 * dependency tsyringe checks for a polyfill), and uses no metadata afterwards: inert stand-ins are present while it loads and
 * are gone when it has, so that a polyfill the program may bring is neither replaced nor pre-empted.
 *
 * @since 0.1.0
 * @category getters
 */
export const library = (): Library => {
  const missing = standIns.filter((name) => !Reflect.has(Reflect, name))
  for (const name of missing) Reflect.defineProperty(Reflect, name, { configurable: true, value: inert })
  try {
    return require("@peculiar/x509")
  } finally {
    for (const name of missing) Reflect.deleteProperty(Reflect, name)
  }
}

/**
 * Reads a certificate for people to look at. Nothing about it is verified. `IdentityError` `Malformed` when the library cannot
 * read it.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Certificate } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const certificate = Certificate.fromDer(new Uint8Array(0))
 * console.log(Either.isLeft(certificate)) // true
 * ```
 */
export const fromDer = (der: Uint8Array): Either.Either<X509Certificate, IdentityError> =>
  Either.try({
    try: () => {
      const { X509Certificate } = library()
      return new X509Certificate(Uint8Array.from(der))
    },
    catch: (cause) =>
      new IdentityError({
        reason: "Malformed",
        description: `expected a certificate that @peculiar/x509 can read, got one that it cannot: ${cause instanceof Error ? cause.message : cause}`
      })
  })

/**
 * {@link fromDer} of several, in their order.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Certificate, type PeerVerifier } from "@agentweave/spiffe"
 * import { Either } from "effect"
 *
 * const issuers = (peer: PeerVerifier.VerifiedPeer) =>
 *   Either.map(Certificate.fromDers(peer.chain), (chain) => chain.map(({ issuer }) => issuer))
 * ```
 */
export const fromDers = (
  ders: ReadonlyArray<Uint8Array>
): Either.Either<ReadonlyArray<X509Certificate>, IdentityError> => Either.all(ders.map(fromDer))
