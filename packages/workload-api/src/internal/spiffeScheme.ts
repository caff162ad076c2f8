/** The beginning of every SPIFFE ID (SPIFFE-ID section 2); messages name a trust domain by an ID without a path. */
export const spiffeScheme = "spiffe://"
