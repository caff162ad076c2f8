/** The names that client and server must agree on (SPIFFE_Workload_Endpoint section 3, workloadapi.proto). */

export const securityHeader = "workload.spiffe.io"
export const securityValue = "true"

const service = "/SpiffeWorkloadAPI"

export const paths = {
  fetchX509Svid: `${service}/FetchX509SVID`,
  fetchX509Bundles: `${service}/FetchX509Bundles`,
  fetchJwtSvid: `${service}/FetchJWTSVID`,
  fetchJwtBundles: `${service}/FetchJWTBundles`,
  validateJwtSvid: `${service}/ValidateJWTSVID`,
  fetchWitSvid: `${service}/FetchWITSVID`,
  fetchWitBundles: `${service}/FetchWITBundles`
} as const
