import { firstRefusal, type Guard, type Refusal } from "./guard.js"

export const maxCertificates = 10
export const maxChainBytes = 64 * 1024

const byteCount = (chain: ReadonlyArray<Uint8Array>): number =>
  chain.reduce((total, certificate) => total + certificate.length, 0)

/** Limits that are checked before anything is read. */
export const sizeGuards: ReadonlyArray<Guard<ReadonlyArray<Uint8Array>>> = [
  {
    rule: "certificate-present",
    reason: "NoCertificate",
    expected: () => "a certificate",
    holds: (chain) => chain.length > 0,
    seen: (chain) => `${chain.length}`
  },
  {
    rule: "certificates-limit",
    reason: "LimitExceeded",
    expected: () => `at most ${maxCertificates} certificates`,
    holds: (chain) => chain.length <= maxCertificates,
    seen: (chain) => `${chain.length}`
  },
  {
    rule: "bytes-limit",
    reason: "LimitExceeded",
    expected: () => `at most ${maxChainBytes} bytes of certificates`,
    holds: (chain) => byteCount(chain) <= maxChainBytes,
    seen: (chain) => `${byteCount(chain)}`
  }
]

/** Refuses a chain by its size alone. */
export const sizeRefusal = (chain: ReadonlyArray<Uint8Array>): Refusal | undefined => firstRefusal(sizeGuards, chain)
