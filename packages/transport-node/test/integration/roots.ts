import * as X509Bundle from "@agentweave/spiffe/X509Bundle"
import type * as DevAuthority from "@agentweave/testkit/DevAuthority"

/** The authority's roots, as a raw peer takes them for `ca`. */
export const caOf = (authority: DevAuthority.DevAuthority): string => X509Bundle.toPem(authority.bundle)
