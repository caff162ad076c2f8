/**
 * @since 0.1.0
 */
export * as CertificateAuthority from "./CertificateAuthority.js"
export * as CertificateProfile from "./CertificateProfile.js"
export * as Credentials from "./Credentials.js"
export * as DevAuthority from "./DevAuthority.js"
export * as FakeWorkloadApi from "./FakeWorkloadApi.js"
export * as Fault from "./Fault.js"
export * as FaultProxy from "./FaultProxy.js"
export * as KeyPair from "./KeyPair.js"
export * as MintError from "./MintError.js"
export * as PeerCase from "./PeerCase.js"
export * as TestConnector from "./TestConnector.js"
export * as TestIdentity from "./TestIdentity.js"
export * as TestMessage from "./TestMessage.js"
