/**
 * @since 0.1.0
 */
export * as Explanation from "./Explanation.js"
export * as IdentityError from "./IdentityError.js"
export * as IdentityProblem from "./IdentityProblem.js"
export * as IdentityProvider from "./IdentityProvider.js"
export * as InvalidSpiffeIdError from "./InvalidSpiffeIdError.js"
export * as PeerMatcher from "./PeerMatcher.js"
export * as PeerVerificationError from "./PeerVerificationError.js"
export * as PeerVerifier from "./PeerVerifier.js"
export * as SpiffeBundle from "./SpiffeBundle.js"
export * as SpiffeId from "./SpiffeId.js"
export * as TrustDomain from "./TrustDomain.js"
export * as X509Bundle from "./X509Bundle.js"
export * as X509BundleSet from "./X509BundleSet.js"
export * as X509Context from "./X509Context.js"
export * as X509Svid from "./X509Svid.js"
