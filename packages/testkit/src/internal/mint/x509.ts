/** The library that makes certificates: `@peculiar/x509`. */
import { type Library, library } from "@agentweave/spiffe/Certificate"

/** @internal */
export type X509 = Library

/** @internal */
export const loadX509 = library
